"""Examines a GGUF in a child process before this one loads it.

llama.cpp aborts the whole process on some malformed or unusual files. A child reads the header,
builds the model and its contexts without allocating or reading a single weight, and either
survives, which is remembered per file, or its last words become one line. Knows nothing of what
the file is wanted for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from mtp_cli.errors import MtpError
from mtp_cli.whole_file import write_whole

if TYPE_CHECKING:
    from mtp_cli.engine.files.gguf_header import Header

_ASSERT = re.compile(r"(GGML_ASSERT\(.*|.*error.*|what\(\):.*)", re.IGNORECASE)
# Not "-m": that would import from the folder the user happens to be in.
_CHILD = f"import sys; sys.path = [p for p in sys.path if p]; import {__name__} as p; p.main()"
_CHECKS = 4  # goes up with every new check, so that files passed by fewer are examined again
_N_REMEMBERED = 256
_LIMIT_S = 120.0  # some tokenizers never return


def preflight(path: Path, target: Path | None = None) -> None:
    """Raise MtpError, naming the file, when llama.cpp cannot load it.

    target: what heads are to run beside; an assistant is nothing without
    """
    from mtp_cli.engine.files import gguf_header

    gguf_header.check_preamble(path)
    files = [file for file in (path, target) if file is not None]
    identities = [identity(file) for file in files]
    key = None if None in identities else ":".join(map(str, (_CHECKS, *identities)))
    if key is not None and key in _remembered():
        return
    _examine_in_child(*files)
    if key is not None:
        _remember(key)


def _examine_in_child(path: Path, *target: Path) -> None:
    environment = {
        **os.environ,
        "GGML_NO_BACKTRACE": "1",
        "PYTHONIOENCODING": "utf-8:surrogateescape",  # names of files may be any bytes
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
    }
    try:
        child = subprocess.run(
            [sys.executable, "-c", _CHILD, *map(str, (path, *target))],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="surrogateescape",
            check=False,
            timeout=_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise MtpError(
            f"{path}: llama.cpp did not come to an end with this file; get it again"
        ) from None
    if child.returncode == 0:
        return
    if child.returncode == 1 and child.stdout:
        raise MtpError(child.stdout.strip())
    last_words = _ASSERT.findall(child.stderr) or child.stderr.strip().splitlines()[-1:]
    reason = last_words[-1].strip() if last_words else f"it died with {child.returncode}"
    raise MtpError(
        f"{path}: llama.cpp cannot run this file ({reason}); get it again, or another conversion"
    )


def examine(path: Path, target: Path | None = None) -> None:
    """What the child does: load everything but the weights. Raises MtpError, or aborts."""
    from mtp_cli.engine.backend.context import Context
    from mtp_cli.engine.backend.model import Model
    from mtp_cli.engine.files import fused_heads, gguf_header, independent_heads, soundness, trimmed
    from mtp_cli.engine.types import HiddenSource

    shards = gguf_header.read_shards(path)
    soundness.check_kind(shards[0])
    if gguf_header.is_drafter(shards[0]) and not gguf_header.is_heads_alone(shards[0]):
        _examine_beside(path, target)
        return
    if independent_heads.is_independent(shards[0]):
        _examine_independent(shards[0])
        return
    is_head = gguf_header.is_heads_alone(shards[0])
    if is_head and trimmed.is_trimmed(shards[0]):  # which llama.cpp is not shown
        soundness.check_numbers(shards[0], uses_rope=True)
        return
    with fused_heads.for_llama_cpp(path) if is_head else contextlib.nullcontext(path) as loaded:
        model = Model(loaded, no_alloc=True, corrected=shards[0].corrected)
    soundness.check_numbers(shards[0], uses_rope=model.uses_rope)
    runs_heads = [] if is_head else [False]
    if not is_head:
        soundness.check_target(shards[0])
        model.check_text()
        soundness.check_writes(shards[0])
    if is_head or gguf_header.has_heads(shards):
        soundness.check_heads(shards)
        runs_heads.append(True)
    for mtp in runs_heads:
        hidden = HiddenSource.NEXTN if mtp else HiddenSource.EMBD
        Context(
            model, n_ctx=256, n_batch=64, n_outputs=16, n_threads=1, hidden=hidden, mtp=mtp
        ).close()
    model.close()


def _examine_beside(path: Path, target: Path | None) -> None:
    """The context of an assistant, or of a drafter in llama.cpp's own layout, is built over its
    target's."""
    from mtp_cli.engine.backend.context import Context
    from mtp_cli.engine.backend.model import Model
    from mtp_cli.engine.files import gguf_header, soundness
    from mtp_cli.engine.files.pairing import pair
    from mtp_cli.engine.types import HiddenSource

    if target is None:
        raise MtpError(f"{path}: drafts beside the model it was made for; pass it with --heads")
    pairing = pair(gguf_header.read_shards(target), path)
    assert pairing is not None
    assert pairing.heads is not None
    models = Model(target, no_alloc=True), Model(path, no_alloc=True)
    soundness.check_numbers(pairing.heads, uses_rope=models[1].uses_rope)
    n_rows = 1 if pairing.block is None else pairing.block.size
    shared: Context | None = None
    contexts = []
    for model in models:
        shared = Context(
            model,
            n_ctx=256,
            n_batch=n_rows,
            n_outputs=n_rows,
            n_threads=1,
            hidden=HiddenSource.NEXTN if shared or pairing.shares_kv else HiddenSource.NONE,
            mtp=shared is not None and pairing.shares_kv,
            shares=shared,
        )
        contexts.append(shared)
    for context in reversed(contexts):
        context.close()
    for model in models:
        model.close()


def _examine_independent(outer: Header) -> None:
    """Each head is a model of its own, fed with hidden rows."""
    from mtp_cli.engine.backend.batch import Reads
    from mtp_cli.engine.backend.context import Context
    from mtp_cli.engine.backend.model import Model
    from mtp_cli.engine.files import independent_heads, soundness
    from mtp_cli.engine.types import HiddenSource

    for head in independent_heads.embedded(outer):
        model = Model(outer.path, no_alloc=True, offset=head.offset)
        soundness.check_numbers(head.header, uses_rope=model.uses_rope)
        Context(
            model,
            n_ctx=256,
            n_batch=64,
            n_outputs=1,
            n_threads=1,
            hidden=HiddenSource.NONE,
            reads=Reads.HIDDEN,
        ).close()
        model.close()


def identity(path: Path) -> str | None:
    """What tells this version of this file from any other; None when it cannot be seen."""
    from mtp_cli.engine.backend.binding import PINNED

    try:
        stat = path.stat()
    except OSError:
        return None
    facts = (str(path.resolve()), stat.st_size, stat.st_mtime_ns, stat.st_ino, PINNED)
    return hashlib.sha256(repr(facts).encode()).hexdigest()


def _memory() -> Path:
    return Path(platformdirs.user_cache_dir("mtp-cli")) / "preflight.json"


def _remembered() -> list[str]:
    try:
        keys = json.loads(_memory().read_text())
    except (OSError, ValueError, RecursionError):
        return []
    return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []


def _remember(key: str) -> None:
    """Best effort: without a cache the next start examines the file again."""
    keys = [*_remembered(), key][-_N_REMEMBERED:]
    with contextlib.suppress(OSError):
        _memory().parent.mkdir(parents=True, exist_ok=True)
        write_whole(_memory(), json.dumps(keys), is_durable=False)


def main() -> None:
    """The child: exits with 1 and a line on stdout when the file is refused."""
    try:
        examine(*map(Path, sys.argv[1:]))
    except MtpError as error:
        print(error)
        sys.exit(1)
