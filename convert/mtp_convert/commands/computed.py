"""Which heads in the common form (`d2t`) code of our own computes, written or only planned.

Asks the engine's own check. Knows nothing of how a head comes into that form.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from mtp_cli.engine.drafters import compiled_head
from mtp_cli.engine.drafters.mtp import N_CTX
from mtp_cli.engine.files.gguf_header import Header, TensorEntry, read_header
from mtp_cli.engine.files.trimmed import D2T, LEAST
from mtp_cli.errors import MtpError
from mtp_convert.gguf.model import GgufModel
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import Wanted

_LLAMA_CPPS = ("qwen35", "qwen35moe")  # architectures whose heads llama.cpp's pull request runs


def runs_here(path: Path) -> bool:
    """Whether a file's heads are computed, and the code was built."""
    return compiled_head.usable() is not None and _is(read_header(path))


def check(heads: GgufModel, planned: Callable[[Wanted], Plan], wanted: Wanted) -> None:
    """MtpError, with what to do, where nothing would run these heads in the common form.

    planned: their plan in it, by the number formats wanted
    """
    plan = planned(wanted)
    if heads.arch in _LLAMA_CPPS or _plan_is(heads, plan):
        return
    advice = f"leave out --{D2T}"
    if any(tensor.name == D2T and tensor.shape[0] < LEAST for tensor in plan.tensors):
        advice = f"take --ids {LEAST} or more, or {advice}"
    elif _plan_is(heads, planned(Wanted("q8_0"))):
        alone = " and no --head-outtype" if wanted.explicit_head else ""
        advice = f"take --outtype q8_0{alone}, or {advice}"
    raise MtpError(f"{heads.path}: nothing would run this head with {D2T}; {advice}")


def _plan_is(heads: GgufModel, plan: Plan) -> bool:
    """As the engine will see the file."""
    entries = {
        tensor.name: TensorEntry(
            tensor.name, int(tensor.kind), tensor.shape[::-1], offset=0, n_bytes=tensor.n_bytes
        )
        for tensor in plan.tensors
    }
    pairs = {key: one.value for key, one in plan.metadata.items()}
    return _is(Header(heads.path, pairs, entries))


def _is(header: Header) -> bool:
    n_ctx = min(N_CTX, header.number("context_length") or N_CTX)
    n_ids = header.tensors[D2T].shape[0]
    return n_ids >= LEAST and compiled_head.described(header, n_ctx) is not None
