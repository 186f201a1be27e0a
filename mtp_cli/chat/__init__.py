"""`mtp-chat`: a conversation in the terminal, or one answer in a pipe."""
