"""What proposes tokens. Knows the target only by the ids and hidden rows it is shown."""

from mtp_cli.engine.drafters.base import Draft, Drafter, LastingDrafter, NoDrafter

__all__ = ["Draft", "Drafter", "LastingDrafter", "NoDrafter"]
