"""From how heads are to be run to what runs them: their model, their context, their drafter. And
likewise of a small model that drafts.

Owns closing what it had opened when the rest fails. Knows nothing of how a pairing was found.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from mtp_cli.engine.backend.batch import Reads
from mtp_cli.engine.backend.binding import supports_gpu
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.backend.placement import ANYWHERE
from mtp_cli.engine.backend.target import Target
from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.adopted_ids import CompiledIds, ScoredIds
from mtp_cli.engine.drafters.base import LastingDrafter
from mtp_cli.engine.drafters.block import open_block
from mtp_cli.engine.drafters.compiled_head import NativeHead, head_norm
from mtp_cli.engine.drafters.eagle3 import open_eagle3
from mtp_cli.engine.drafters.fused import FusedDrafter
from mtp_cli.engine.drafters.fusion import open_fusion
from mtp_cli.engine.drafters.head_ids import HeadIds
from mtp_cli.engine.drafters.independent import N_KEPT, IndependentDrafter
from mtp_cli.engine.drafters.mtp import N_BATCH, N_CTX, MtpDrafter
from mtp_cli.engine.drafters.shared_kv import SharedKvDrafter
from mtp_cli.engine.drafters.small_model import N_BATCH as N_BATCH_SMALL
from mtp_cli.engine.drafters.small_model import N_CTX_MIN as N_CTX_SMALL_MIN
from mtp_cli.engine.drafters.small_model import SmallModelDrafter
from mtp_cli.engine.drafters.vocabulary_map import mapped
from mtp_cli.engine.files import trimmed
from mtp_cli.engine.files.fused_heads import for_llama_cpp
from mtp_cli.engine.files.gguf_header import Header, is_eagle3, read_shards
from mtp_cli.engine.files.memory import fits_laid_out
from mtp_cli.engine.files.pairing import Pairing
from mtp_cli.engine.files.target_tables import (
    TablePlaces,
    TargetTables,
    compared,
    stands_for,
    table_places,
)
from mtp_cli.engine.tuning import TUNING
from mtp_cli.engine.types import HeadContext, HiddenSource, Ids
from mtp_cli.errors import MtpError
from mtp_cli.head_file import Fused

_SHARE_MIN = 0.98  # of the target's tokens, which a draft model must have
N_BATCH_PROMPT = 128  # rows of a prompt that a head reads at once
_N_ROWS_MIN = 2  # however small the context: two rows show which one's output a decode gives


def open_drafter(
    target: Target, pairing: Pairing, n_threads: int, n_gpu_layers: int
) -> LastingDrafter:
    """The drafter of this pairing; it must be closed before the target."""
    if pairing.path is not None and pairing.offsets:
        contexts = independent_contexts(
            pairing.path, pairing.offsets, target.n_ctx, n_threads, n_gpu_layers
        )
        _follow(target, *contexts)
        return IndependentDrafter(contexts, pairing.vocabulary)
    if pairing.heads is not None and pairing.block is not None:
        block, runs = open_block(target, pairing.heads, pairing.block, n_threads, n_gpu_layers)
        _follow(target, runs)
        return block
    if pairing.heads is not None and pairing.fused is not None and is_eagle3(pairing.heads):
        drafter, drafts = open_eagle3(target, pairing.heads, pairing.fused, n_threads, n_gpu_layers)
        _follow(target, drafts)
        return drafter
    if pairing.heads is not None and pairing.fused is not None:
        return _open_fused(target, pairing, pairing.heads, pairing.fused, n_threads, n_gpu_layers)
    return _open_heads(target, pairing, n_threads, n_gpu_layers)


def _open_heads(
    target: Target, pairing: Pairing, n_threads: int, n_gpu_layers: int
) -> LastingDrafter:
    """Heads that read one row of the target: in code of our own, or in a context of llama.cpp."""
    n_ctx = max(_N_ROWS_MIN, min(N_CTX, target.n_ctx))
    n_batch = max(_N_ROWS_MIN, min(N_BATCH, target.n_ctx))
    is_ours = pairing.draft_ids is not None or not (supports_gpu() and n_gpu_layers)
    if pairing.heads is not None and is_ours:
        head = _native_head(pairing.heads, pairing.draft_ids, n_ctx, n_batch, n_threads)
        if head is not None:
            _follow(target, head)
            ids = _head_ids(pairing, pairing.heads, head)
            return MtpDrafter(head, ids=ids, scale=pairing.scale)
    with contextlib.ExitStack() as opened:
        own = None
        if pairing.path is not None:
            # Where the target's memory is, if it reads that; else on this machine: a step is short.
            placement = target.model.placement.alone() if pairing.shares_kv else ANYWHERE
            own = Model(pairing.path, n_gpu_layers=n_gpu_layers, placement=placement)
            opened.callback(own.close)
        context = Context(
            own or target.model,
            n_ctx=target.n_ctx if pairing.shares_kv else n_ctx,
            n_batch=1 if pairing.shares_kv else n_batch,
            n_outputs=1,
            n_threads=n_threads,
            hidden=HiddenSource.NEXTN,
            mtp=True,
            shares=target.context if pairing.shares_kv else None,
            owns_model=own is not None,
        )
        opened.pop_all()
    _follow(target, context)
    if pairing.shares_kv:
        return SharedKvDrafter(context)
    ids = HeadIds(pairing.vocabulary)
    if pairing.heads is not None and pairing.n_heads == 1:
        ids = _head_ids(pairing, pairing.heads, context)
    return MtpDrafter(context, ids=ids, scale=pairing.scale, n_chained=pairing.n_heads)


def _head_ids(pairing: Pairing, heads: Header, head: HeadContext) -> HeadIds:
    """Which ids a head as mtp-train makes them reads and drafts in: those of the text, too, where
    the target's rows of them stand for the head's."""
    own = HeadIds(pairing.vocabulary, pairing.draft_ids)
    found, heads_own = pairing.tables, table_places([heads])
    if own.draft_ids is None or found is None or heads_own is None:
        return own
    # A file that cannot be read any more is no reason not to draft.
    with contextlib.ExitStack() as opened, contextlib.suppress(MtpError, OSError):
        tables = TargetTables(found)
        opened.callback(tables.close)
        if head.n_embd != tables.n_embd or own.draft_ids.max() >= tables.n_vocab:
            return own
        adopted: HeadIds | None = None
        if isinstance(head, NativeHead):
            adopted = CompiledIds(head, tables, pairing.vocabulary, pairing.draft_ids)
        elif pairing.vocabulary is not None and (norm := head_norm(heads)) is not None:
            adopted = ScoredIds(*norm, tables, pairing.vocabulary)
        if adopted is not None and (pairing.adopts or _are_alike(tables, heads_own, pairing)):
            opened.pop_all()
            return adopted
    return own


def _are_alike(target: TargetTables, heads: TablePlaces, pairing: Pairing) -> bool:
    """Whether the target's rows stand for a head's own."""
    vocabulary = pairing.vocabulary
    draft_ids = pairing.draft_ids if vocabulary is None else vocabulary.draft_ids
    assert draft_ids is not None
    places = compared(len(draft_ids))
    ids = draft_ids[places]
    with contextlib.closing(TargetTables(heads)) as own:
        is_whole = vocabulary is None  # it embeds all of the target's ids by a table of its own
        return stands_for(target.output(ids), own.output(places)) and (
            is_whole or stands_for(target.embedding(ids), own.embedding(places))
        )


def _native_head(
    heads: Header, draft_ids: Ids | None, n_ctx: int, n_batch: int, n_threads: int
) -> NativeHead | None:
    """The head as code of our own computes it; None where llama.cpp is to.

    MtpError where neither can: llama.cpp loads none that drafts in fewer ids than it reads.
    """
    runnable = compiled_head.runnable(heads, n_ctx)
    if runnable is None and draft_ids is not None:
        raise trimmed.unrun(heads)
    if runnable is None:
        return None
    return NativeHead(runnable, n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads)


def _open_fused(
    target: Target,
    pairing: Pairing,
    heads: Header,
    fused: Fused,
    n_threads: int,
    n_gpu_layers: int,
) -> FusedDrafter:
    """A head that reads rows of several layers of the target."""
    target.check_rows()
    n_ctx = max(_N_ROWS_MIN, min(N_CTX + fused.prompt_rows, target.n_ctx))
    n_batch = max(_N_ROWS_MIN, min(max(N_BATCH, fused.prompt_rows), N_BATCH_PROMPT, n_ctx))
    runnable = None
    if not (supports_gpu() and n_gpu_layers):
        runnable = compiled_head.runnable(heads, n_ctx)
    with contextlib.ExitStack() as opened:
        fusion = open_fusion(heads, n_batch, n_threads)
        opened.callback(fusion.close)
        context: HeadContext
        if runnable is not None:
            context = NativeHead(runnable, n_ctx=n_ctx, n_batch=n_batch, n_threads=n_threads)
        else:
            with for_llama_cpp(heads.path) as path:
                model = Model(path, n_gpu_layers=n_gpu_layers)
            opened.callback(model.close)
            context = Context(
                model,
                n_ctx=n_ctx,
                n_batch=n_batch,
                n_outputs=1,
                n_threads=n_threads,
                hidden=HiddenSource.NEXTN,
                mtp=True,
                owns_model=True,
            )
        opened.callback(context.close)
        ids = _head_ids(pairing, heads, context)
        opened.callback(ids.close)
        drafter = FusedDrafter(
            context,
            fusion,
            ids=ids,
            prompt_rows=fused.prompt_rows,
            n_batch=n_batch,
        )
        opened.pop_all()
    _follow(target, context)
    if target.cores is not None:
        target.cores.follow(fusion.use_threads)
    return drafter


def _follow(target: Target, *contexts: HeadContext) -> None:
    """Let them have as many threads as the target has."""
    if target.cores is not None:
        for context in contexts:
            target.cores.follow(context.use_threads)


def open_small_model(
    target: Target, path: Path, n_threads: int, n_gpu_layers: int
) -> SmallModelDrafter:
    """A drafter that is a model of its own; MtpError where it cannot follow the target's text."""
    fits = fits_laid_out(read_shards(path))
    model = Model(path, n_gpu_layers=n_gpu_layers, lays_out=fits)
    with contextlib.ExitStack() as opened:
        opened.callback(model.close)
        if model.is_recurrent:
            raise MtpError(
                f"{path}: a recurrent model cannot take back what was not accepted; "
                "take one with attention alone to draft"
            )
        ids = mapped(target.model.spellings(), model.spellings())
        if ids is not None and ids.share < _SHARE_MIN:
            raise MtpError(
                f"{path}: has {ids.share:.0%} of the tokens of {target.model.path.name}; "
                "take a smaller model of the same family"
            )
        wanted = min(model.n_ctx_train or target.n_ctx, TUNING.small_model.n_ctx)
        n_ctx = min(target.n_ctx, max(wanted, N_CTX_SMALL_MIN))
        context = Context(
            model,
            n_ctx=n_ctx,
            n_batch=min(N_BATCH_SMALL, n_ctx),
            n_outputs=1,
            n_threads=n_threads,
            hidden=HiddenSource.NONE,
            owns_model=True,
        )
        opened.pop_all()
    _follow(target, context)
    return SmallModelDrafter(context, ids)


def independent_contexts(
    path: Path, offsets: Sequence[int], n_ctx: int, n_threads: int, n_gpu_layers: int
) -> list[Context]:
    """A context for each head of a file; its model is closed with it.

    offsets: where in the file each head's GGUF begins
    """
    contexts = []
    with contextlib.ExitStack() as opened:
        for offset in offsets:
            model = Model(path, n_gpu_layers=n_gpu_layers, offset=offset)
            opened.callback(model.close)
            context = Context(
                model,
                n_ctx=n_ctx,
                n_batch=min(N_KEPT, n_ctx),
                n_outputs=1,
                n_threads=n_threads,
                hidden=HiddenSource.NONE,
                reads=Reads.HIDDEN,
                owns_model=True,
            )
            opened.callback(context.close)
            contexts.append(context)
        opened.pop_all()
    return contexts
