"""Which ids a grammar allows, along an answer and the drafts that would go on with it.

Owns the matcher's one timeline: the ids that are final, and those of a draft after them, which it
hears and takes back. Knows nothing of sampling or of where drafts come from.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from mtp_cli.engine.grammar.constraint import Forced, Recalled
from mtp_cli.engine.grammar.values import Rest, Values
from mtp_cli.engine.native import compiled
from mtp_cli.engine.prefix import n_common
from mtp_cli.engine.types import Floats, Ids
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # it loads llguidance
    from mtp_cli.engine.grammar.vocabulary import Vocabulary

Mask = npt.NDArray[np.uint32]  # a bit for each id, 32 in a word


class Matcher(Protocol):
    """llguidance's `LLMatcher`, as far as it is used."""

    def is_stopped(self) -> bool: ...
    def is_error(self) -> bool: ...
    def get_error(self) -> str: ...
    def try_consume_tokens(self, tokens: list[int]) -> int: ...
    def consume_tokens(self, sampled_tokens: list[int]) -> bool: ...
    def rollback(self, num_tokens: int) -> bool: ...
    def compute_ff_tokens(self) -> list[int]: ...
    def compute_ff_bytes(self) -> bytes: ...
    def unsafe_compute_mask_ptr(self, trg_pointer: int, trg_byte_size: int) -> None: ...


class Constrained:
    """An answer that is a text of one grammar.

    begun: bytes of it that were said before

    Raises MtpError where those do not fit.
    """

    def __init__(self, matcher: Matcher, vocabulary: Vocabulary, begun: bytes = b"") -> None:
        self._matcher = matcher
        self._vocabulary = vocabulary
        self._drafted: list[int] = []  # what the matcher has heard and may have to take back
        self._masks: dict[int, Mask] = {}  # by how many of those it has heard
        self._values = Values()
        self._values.say(begun)
        spelled = vocabulary.longest(begun)
        if vocabulary.spelled(spelled) != begun or not matcher.consume_tokens(spelled):
            raise MtpError("what was said so far does not fit the grammar")

    @property
    def is_complete(self) -> bool:
        self._follow(())
        return self._matcher.is_stopped()

    def restrict(self, logits: Floats, drafted: Sequence[int], ids: Ids | None = None) -> None:
        if self._follow(drafted) == len(drafted):
            restrict(logits, self._mask(), ids)

    def _mask(self) -> Mask:
        n = len(self._drafted)
        if n not in self._masks:
            mask = np.empty((len(self._vocabulary.pieces) + 31) // 32, np.uint32)
            self._matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            self._check()
            self._masks[n] = mask
        return self._masks[n]

    def n_fitting(self, ids: Sequence[int]) -> int:
        return self._follow(ids)

    def _follow(self, drafted: Sequence[int]) -> int:
        """Have the matcher hear these ids after the final ones, as far as they fit: how many."""
        n_same = n_common(self._drafted, drafted)
        self._take_back(n_same)
        for id_ in drafted[n_same:]:
            if self._matcher.is_stopped() or not self._matcher.try_consume_tokens([id_]):
                break
            self._drafted.append(id_)
        return len(self._drafted)

    def _take_back(self, n_kept: int) -> None:
        n_dropped = len(self._drafted) - n_kept
        if n_dropped == 0:
            return
        self._matcher.rollback(n_dropped)
        self._check()
        del self._drafted[n_kept:]
        self._masks = {n: mask for n, mask in self._masks.items() if n <= n_kept}

    def forced(self) -> Forced:
        self._follow(())
        if self._matcher.is_stopped():
            return Forced([], 0)
        certain = self._matcher.compute_ff_tokens()
        n_certain = self._follow(certain)
        rest = self._matcher.compute_ff_bytes().decode(errors="ignore")
        ids = [*certain[:n_certain], *(self._vocabulary.tokenize(rest) if rest else ())]
        return Forced(ids[: self._follow(ids)], n_certain)

    def read(self, prompt: Sequence[int]) -> None:
        self._values.read(self._vocabulary.spelled(prompt))

    def recalled(self) -> Recalled | None:
        self._follow(())
        rest = None if self._matcher.is_stopped() else self._values.rest()
        if rest is None:
            return None
        ids = self._closed(rest)
        ends = itertools.accumulate(len(self._vocabulary.pieces[token]) for token in ids)
        n_rest = sum(end <= len(rest.text) for end in ends)
        return Recalled(ids, n_rest, rest.n_said, rest.is_clear)

    def _closed(self, rest: Rest) -> list[int]:
        """Ids of it, of what closes it and of what is forced then, as far as the grammar allows."""
        tokenize, text = self._vocabulary.tokenize, rest.text.decode(errors="ignore")
        ids = tokenize(text) if text else []
        n_fitting = self._follow(ids)
        for closer in rest.closers if n_fitting == len(ids) else ():
            closed = [*ids, *self._vocabulary.longest(closer)]
            if self._follow(closed) == len(closed):
                is_last = self._matcher.is_stopped()
                after = b"" if is_last else self._matcher.compute_ff_bytes()
                ids = tokenize(text + (closer + after).decode(errors="ignore"))
                n_fitting = self._follow(ids)
                break
        return ids[:n_fitting]

    def accept(self, ids: Sequence[int]) -> int:
        n = self._follow(ids)
        if n < len(ids) and not self._matcher.is_stopped():
            raise MtpError("the model gives no token that the grammar allows")
        self._values.say(self._vocabulary.spelled(ids[:n]))
        self._masks = {k - n: mask for k, mask in self._masks.items() if k >= n}
        self._drafted = []
        return n

    def _check(self) -> None:
        if self._matcher.is_error():
            reason = self._matcher.get_error().strip().partition("\n")[0]
            raise MtpError(f"the grammar cannot be followed any further: {reason}")


def restrict(logits: Floats, mask: Mask, ids: Ids | None = None) -> None:
    """Make the logits, (n,) float32, of ids that are not in the mask -infinity."""
    library = compiled.load()
    if library is None or not logits.flags.c_contiguous or not logits.flags.writeable:
        restrict_by_numpy(logits, mask, ids)
        return
    places = None if ids is None else ids.ctypes.data
    library.mtp_restrict(logits.ctypes.data, len(logits), mask.ctypes.data, places)


def restrict_by_numpy(logits: Floats, mask: Mask, ids: Ids | None = None) -> None:
    if ids is None:
        ids = np.arange(len(logits), dtype=np.int32)
    logits[(mask[ids >> 5] >> (ids & 31).astype(np.uint32)) & 1 == 0] = -np.inf
