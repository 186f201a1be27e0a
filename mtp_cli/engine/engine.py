"""One loaded model with its drafter, and the one timeline they share.

Owns how a model is loaded, and what each answer is made by. Token ids in, token ids out: knows
nothing of conversations or terminals.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal

from mtp_cli.engine.backend import our_kernels, rpc
from mtp_cli.engine.backend.binding import backends
from mtp_cli.engine.backend.cache import F16, CacheTypes
from mtp_cli.engine.backend.cores import physical_cores
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.ways import AS_USUAL, Ways
from mtp_cli.engine.depth.cost import CostModel
from mtp_cli.engine.depth.exactness import CheckedTarget
from mtp_cli.engine.depth.experience import Experience, Situation
from mtp_cli.engine.depth.policy import DepthPolicy
from mtp_cli.engine.depth.remembered import key_of
from mtp_cli.engine.files.examined import examined
from mtp_cli.engine.files.memory import fits_laid_out
from mtp_cli.engine.files.preflight import identity
from mtp_cli.engine.generate import Generation, Watch
from mtp_cli.engine.grammar.constraint import Constraint
from mtp_cli.engine.keeping import Keeping
from mtp_cli.engine.kept_prompts import KeptPrompts
from mtp_cli.engine.sampling.recommended import Recommended
from mtp_cli.engine.sampling.sampler import Sampler
from mtp_cli.engine.sampling.settings import Sampling
from mtp_cli.engine.timeline import Setup
from mtp_cli.engine.types import Depth, Saved, TargetLike, TokenKind
from mtp_cli.errors import MtpError

if TYPE_CHECKING:  # they load llguidance
    from mtp_cli.engine.grammar.source import Grammar
    from mtp_cli.engine.grammar.vocabulary import Vocabulary


class Engine:
    """A target, what drafts for it, and what they have read so far.

    n_ctx:    tokens that prompt and answer can have together
    n_ctx_train: tokens of context that the target was trained with, 0 where its file does not say
    n_vocab:  the target's
    drafter:  what drafts, for people; None when nothing does
    metadata: the GGUF's scalar keys, as llama.cpp prints their values
    recommended: what it recommends for sampling
    """

    def __init__(self, model: Model, setup: Setup, *, owns_model: bool) -> None:
        self.metadata: Mapping[str, str] = model.metadata()
        self.recommended = Recommended.from_metadata(self.metadata)
        self._model = model
        self._setup = setup
        self._owns_model = owns_model
        self._timeline = setup.open(model)
        self._keeping: Keeping | None = None
        self._vocabulary: Vocabulary | None = None  # only where answers are constrained
        self._experience = Experience(
            setup.cost_facts,
            self._timeline.target,
            self._timeline.drafter,
            n_max=1 + self._timeline.target.max_draft,
            n_threads=self._n_threads,
            n_threads_most=setup.n_threads,
        )
        self.drafter = setup.describe()
        self.n_ctx = self._timeline.target.n_ctx
        self.n_ctx_train = model.n_ctx_train
        self.n_vocab = model.n_vocab

    @classmethod
    def open(
        cls,
        model: Path,
        heads: Path | None = None,
        *,
        draft_model: Path | None = None,
        n_ctx: int | None = None,
        n_threads: int | None = None,
        n_gpu_layers: int | None = None,
        n_gpu_layers_draft: int | None = None,
        cache: CacheTypes = F16,
        ways: Ways = AS_USUAL,
        on_progress: Callable[[float], None] | None = None,
    ) -> Engine:
        """Load a model, and what drafts for it: the heads in its own file or in `heads`, or another
        model.

        draft_model:  a smaller model with the same vocabulary
        n_ctx:        tokens; default 8192, or less if the model was trained with less
        n_threads:    default: the physical cores this process may use, and fewer while other
                      programs use some
        n_gpu_layers: default: all, or as many as the device's memory takes
        n_gpu_layers_draft: of what drafts; default: as the model's
        cache:        what the target's memory keeps keys and values in; heads' own is in F16
        ways:         devices, adapters and rope, where the user has a say in them
        on_progress:  called with the fraction of the target that is loaded

        Raises MtpError for everything that can be wrong with the files, or too large.
        """
        shards, pairing = examined(model, heads, draft_model)
        spares_cores, n_threads = n_threads is None, n_threads or physical_cores()
        lays_out = fits_laid_out(shards)

        def load(n_layers: int) -> Engine:
            loaded = Model(
                model,
                n_gpu_layers=n_layers,
                corrected=shards[0].corrected,
                placement=ways.placement,
                loras=ways.loras,
                lays_out=lays_out,
                on_progress=on_progress,
            )
            try:
                drafts = draft_model or heads
                files = (identity(model), identity(drafts) if drafts else None)
                adapters = tuple(identity(lora.path) for lora in ways.loras)
                n_draft = n_layers if n_gpu_layers_draft is None else n_gpu_layers_draft
                how = (n_threads, n_layers, n_draft, cache, ways, adapters, lays_out)
                facts = (*files, backends(), our_kernels.install(), *how)
                setup = Setup(
                    pairing,
                    draft_model,
                    n_ctx,
                    n_threads,
                    spares_cores,
                    n_draft,
                    cache,
                    ways.rope,
                    facts,
                )
                return cls(loaded, setup, owns_model=True)
            except BaseException:
                loaded.close()
                raise

        n_layers = shards[0].number("block_count") if ways.placement.offloads else 0
        rpc.devices(ways.placement.servers)  # what is wrong with one is no lack of memory
        return _fitting(load, n_gpu_layers, n_layers)

    def twin(self) -> Engine:
        """Another timeline over the same weights, with heads, costs and experience of its own.

        For what is to be compared side by side. Close it before this one.
        """
        return Engine(self._model, self._setup, owns_model=False)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        return self._model.tokenize(text, add_special=add_special, parse_special=parse_special)

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """A token's bytes; they may end inside a UTF-8 character."""
        return self._model.piece(token, special=special)

    def is_eog(self, token: int) -> bool:
        """Whether the token ends a generation: EOS, EOT and their like."""
        return self._model.is_eog(token)

    def kind(self, token: int) -> TokenKind:
        """What the file itself says a token is; unknown tokens count as control."""
        return self._model.types.kind(token)

    def is_matched(self, token: int) -> bool:
        """Whether `tokenize` looks for the token's spelling: always, or where `parse_special`."""
        return self._model.types.is_matched(token)

    @property
    def first_token(self) -> int | None:
        """The token that every text begins with (BOS), None where the file wants none."""
        return self._model.first_token

    def special_text(self, name: Literal["bos", "eos"]) -> str:
        return self._model.special_text(name)

    @property
    def cached(self) -> Sequence[int]:
        """The ids the timeline holds now; a prompt that begins with them decodes only its rest."""
        return self._timeline.ids

    def forget(self) -> None:
        """Empty the timeline: the next prompt is read whole, as by an engine just opened."""
        self._timeline.forget()

    def save(self) -> Saved:
        """What the timeline holds now, in memory of the machine's own.

        For a prompt that begins with it to be read on from there, after others were answered.
        """
        return self._timeline.save()

    def restore(self, saved: Saved) -> None:
        """Hold what was saved, as if nothing had come between; with no room for it, nothing."""
        self._timeline.restore(saved)

    def keep_prompts(
        self, folder: Path, *, max_bytes: int, on_problem: Callable[[str], None]
    ) -> None:
        """From now on keep the prompts that were read in files there, and read none again.

        They hold what target and heads then held, so that an answer is the one that it would have
        been, to the bit.

        on_problem: told, from another thread, why one could not be kept
        """
        prompts = KeptPrompts(
            folder,
            key_of((*self._setup.cost_facts, self.n_ctx)),
            n_batch=self._timeline.target.n_batch,
            # Of a sliding window llama.cpp saves what the next token sees, and nothing before it.
            can_shorten=self.can_shorten and self._model.n_swa == 0,
            max_bytes=max_bytes,
            on_problem=on_problem,
        )
        self._keeping = Keeping(self._timeline, prompts)

    @property
    def can_shorten(self) -> bool:
        """Whether the timeline can drop any of its last ids; else all go where one has to."""
        return self._timeline.target.can_repeat

    def generate(
        self,
        prompt: Sequence[int],
        sampling: Sampling,
        *,
        max_tokens: int,
        depth: Depth | DepthPolicy = "auto",
        exact: bool = False,
        watch: Watch | None = None,
        constraint: Constraint | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Generation:
        """Continue `prompt`. At most one generation is under way at a time.

        depth: how many ids to draft each round, 0 to 8, or who decides that; 0 is plain decoding.
               "auto" decides by cost, which it learns while answering (`depth.learning`) for the
               first time that these files meet this machine
        exact: verify only as many rows together as were seen to give the logits of single rows on
               this very text, to the bit, and go on looking (`depth.exactness`), and let the target
               choose every token by itself, so that the answer is plain decoding's on every format:
               the greedy one, or the seed's. `Stats.inexact` tells when that was mistaken
        max_tokens: at 0 the answer has no token, and the prompt is not read
        watch: told each token and the (n_vocab,) logits that it was chosen from (`Generation`)
        constraint: what may be said, see `constrain`; for this answer alone

        At a temperature above 0 every answer comes from the target's own distribution. With a seed
        it is plain decoding's answer, on one machine and where row counts change no bit of the
        logits: drafts are best guesses, and the target chooses every token by itself. Without one
        drafts are drawn (`verify.py`), of which more are accepted.
        """
        timeline, keeping = self._timeline, self._keeping
        if keeping is not None:
            keeping.take_up(prompt)
        sampler = Sampler(
            sampling,
            draws_drafts=sampling.seed is None and not exact,
            piece=functools.partial(self.piece, special=True),
        )
        target: TargetLike = timeline.target
        checked = None
        if exact:
            checked = target = CheckedTarget(
                target,
                self._experience.exactness(),
                can_repeat=timeline.target.can_repeat,
                clock=clock,
            )
        generation = Generation(
            target,
            timeline.drafter,  # at depth 0 too: it has to follow the timeline
            sampler,
            self._policy(depth, sampler, exact=exact),
            prompt,
            max_tokens=max_tokens,
            is_end=self.is_eog,
            ngram=timeline.ngram,
            on_read=None if keeping is None else keeping.put_away,
            constraint=constraint,
            single_row_s=self._experience.single_row_s,
            watch=watch,
            clock=clock if checked is None else checked.clock,
        )
        generation.stats.exact = exact
        if checked is not None:
            checked.stats = generation.stats
        return generation

    def constrain(self, grammar: Grammar, begun: bytes = b"") -> Constraint:
        """What keeps one answer to a grammar; all answers to come have the distribution that is
        left of the target's when each token that leads out of it is ruled out.

        begun: what was said of the text before

        Raises MtpError where that does not fit, or nothing does.
        """
        from mtp_cli.engine.grammar.constrained import Constrained
        from mtp_cli.engine.grammar.vocabulary import Vocabulary

        if self._vocabulary is None:
            self._vocabulary = Vocabulary(self)
        return Constrained(self._vocabulary.matcher(grammar), self._vocabulary, begun)

    def _policy(self, depth: Depth | DepthPolicy, sampler: Sampler, *, exact: bool) -> DepthPolicy:
        if depth != "auto" and not isinstance(depth, int):
            return depth
        situation = Situation(sampler.is_greedy, sampler.draws_drafts, sampler.n_before > 0, exact)
        return self._experience.policy(depth, situation)

    def costs(self) -> CostModel:
        """What rounds cost here; measured now if it never was, which empties the timeline."""
        return self._experience.costs()

    def _n_threads(self) -> int:
        """Of a decode, now."""
        cores = self._timeline.target.cores
        return self._setup.n_threads if cores is None else cores.n_threads

    @property
    def exact_row_counts(self) -> tuple[int, ...]:
        """The row counts that are believed to change no bit now; more are as more was answered."""
        return self._experience.exactness().proven

    def close(self) -> None:
        self._experience.keep()
        if self._keeping is not None:
            self._keeping.finish()
        self._timeline.close()
        if self._owns_model:
            self._model.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def _fitting(load: Callable[[int], Engine], n_gpu_layers: int | None, n_layers: int) -> Engine:
    """Load with the layers asked for, or with as many as fit: all, then ever an eighth fewer.

    n_layers: that can go to other devices than the CPU
    """
    if n_gpu_layers is not None or n_layers == 0:
        return load(-1 if n_gpu_layers is None else n_gpu_layers)
    for tried in (-1, *range(n_layers - 1, 0, -max(1, n_layers // 8))):
        with contextlib.suppress(MtpError):
            return load(tried)
    return load(0)
