"""How a model is loaded and run where the user has a say in it. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass

from mtp_cli.engine.backend.adapters import Lora
from mtp_cli.engine.backend.placement import ANYWHERE, Placement
from mtp_cli.engine.backend.rope import AS_TRAINED, Rope


@dataclass(frozen=True)
class Ways:
    """placement: which device computes what
    loras:     adapters, all at once
    rope:      how positions are rotated
    """

    placement: Placement = ANYWHERE
    loras: tuple[Lora, ...] = ()
    rope: Rope = AS_TRAINED


AS_USUAL = Ways()
