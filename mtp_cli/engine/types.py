"""Types, limits and protocols that the rooms share. Imports nothing of ours.

A protocol says what its user needs, so that tests put scripted ones in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
Bytes = npt.NDArray[np.uint8]
# Told of a prompt's hidden rows, once all of it but its last id is in memory
OnRead = Callable[[Floats | None], None] | None
# What something holds, by names of its own: arrays, so that it can be kept in a file
State = Mapping[str, npt.NDArray[Any]]
Depth = int | Literal["auto"]
FinishReason = Literal["stop", "length", "interrupted"]
# A drafter is heads, or a draft model; what a grammar forces needs neither.
Proposer = Literal["target", "drafter", "copy", "grammar"]
TokenKind = Literal["text", "control", "user-defined"]

N_CTX = 8192  # of a target, unless it was trained with less, or the user says otherwise
MAX_DEPTH = (
    8  # ids that heads draft: more are hardly ever accepted, and recurrent state is kept for
)
MAX_COPIED = 15  # ids that are copied, or come in a block, where the memory can drop as many
N_OUTPUTS = 32  # rows of one decode that can give outputs: a draft's, or a prompt's last ones


class HiddenSource(Enum):
    """Where a context's hidden rows come from.

    NONE:  it gives none
    EMBD:  the row after the final norm; every architecture gives it, but only for a decode whose
           rows are all outputs
    NEXTN: the row an MTP-aware architecture hands its own heads, for output rows
    LAYER: the rows that chosen layers read, side by side, for every row of a decode, whether output
           or not
    LAYER_AND_EMBD: that and EMBD side by side; of a decode whose rows are not all outputs zeros
           instead of EMBD
    """

    NONE = "none"
    EMBD = "embd"
    NEXTN = "nextn"
    LAYER = "layer"
    LAYER_AND_EMBD = "layer_and_embd"

    @property
    def is_of_layers(self) -> bool:
        return self in (HiddenSource.LAYER, HiddenSource.LAYER_AND_EMBD)

    @property
    def has_final(self) -> bool:
        return self in (HiddenSource.EMBD, HiddenSource.LAYER_AND_EMBD)


class Row(NamedTuple):
    """The target's logits (n_vocab,) at one position, and the last ids up to there, its own too.

    A draft's row follows the drafted ids before it, for its logits and for its penalties alike.
    """

    logits: Floats
    before: Sequence[int]


@dataclass(frozen=True)
class Rows:
    """The target's outputs for consecutive positions; views that the next decode overwrites.

    logits: (n_rows, n_vocab) float32
    hidden: (n_rows, n_embd) float32, of a prompt more; None when the context gives none
    """

    logits: Floats
    hidden: Floats | None


@dataclass(frozen=True)
class Saved:
    """What a timeline held at one moment.

    ids:     the ids it had decoded
    state:   what the target's memory held of them
    drafter: what drafted for it held
    """

    ids: tuple[int, ...]
    state: Bytes
    drafter: State = field(default_factory=dict)

    @property
    def n_bytes(self) -> int:
        of_drafter = sum(array.nbytes for array in self.drafter.values())
        return len(self.state) + of_drafter + 8 * len(self.ids)


class TargetLike(Protocol):
    """What loop and calibration need of a target; `backend.target.Target` is the real one."""

    ids: list[int]
    n_ctx: int

    def prefill(
        self,
        tokens: Sequence[int],
        n_hidden: int,
        is_stopped: Callable[[], bool],
        on_read: OnRead = None,
    ) -> Rows | None: ...
    def decode(self, tokens: Sequence[int]) -> Rows: ...
    def truncate(self, n_past: int) -> int: ...


class HeadContext(Protocol):
    """What runs heads: a context of llama.cpp (`backend.context.Context`), or our compiled code."""

    n_ctx: int

    @property
    def n_embd(self) -> int: ...
    def decode(
        self,
        tokens: Sequence[int],
        position: int,
        *,
        first_output: int = 0,
        hidden: Floats | None = None,
    ) -> None: ...
    def read(self, tokens: Sequence[int], position: int, hidden: Floats) -> None: ...
    def logits(self) -> Floats: ...
    def hidden(self) -> Floats | None: ...
    def remove_from(self, position: int) -> bool: ...
    def remove_before(self, position: int) -> bool: ...
    def clear(self) -> None: ...
    def save(self) -> Bytes: ...
    def restore(self, state: Bytes) -> bool: ...
    def use_head(self, index: int) -> None: ...
    def use_threads(self, n_threads: int) -> None: ...
    def close(self) -> None: ...
