"""`python -m mtp_cli.chat` is `mtp-chat`."""

from mtp_cli.chat.cli import main

main()
