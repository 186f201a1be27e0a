"""What a run needs, checked before it writes its first word: an hour later is too late.

Owns the checks and their one-line errors. Every function raises `MtpError` that names what to do.
Knows nothing of how text is written or heads are trained.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from mtp_cli import head_file, models
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.files.gguf_header import read_header, read_shards
from mtp_cli.engine.files.pairing import check_final_rows
from mtp_cli.engine.files.preflight import preflight
from mtp_cli.errors import MtpError
from mtp_cli.whole_file import check_place
from mtp_convert.gguf.splits import parts_of
from mtp_train.existing import has_own_heads
from mtp_train.files import check_free
from mtp_train.framing import Framing
from mtp_train.mark import came_of
from mtp_train.target import Target

_ID_AND_ROLE_BYTES = 5
_N_DRAFT = 8192  # ids of a draft vocabulary, unless more are asked for
_COPIES = 4  # a checkpoint holds weights and two moments, the file being written beside it counts
_ROOM = 1.1  # of what is reckoned, so that headers and the export fit too


def check_writing(
    model: Path,
    folder: Path,
    *,
    n_tokens: int,
    bf16: bool,
    trains: bool = False,
    n_layers: int = 0,
) -> int:
    """That the target can write a corpus of n_tokens, and the folder hold it: in so many bytes.

    trains:   the folder is to hold a checkpoint too
    n_layers: layers whose rows are kept beside the final ones
    """
    preflight(model)
    check_final_rows(read_shards(model)[0])
    target = Target(model)
    target.check_tables()
    found = Model(model, n_gpu_layers=0, no_alloc=True)
    try:
        Framing(found)
    finally:
        found.close()
    s = target.sizes
    needed = n_tokens * (2 * s.n_embd * (1 + n_layers) + _ID_AND_ROLE_BYTES)
    needed += 2 * target.n_parameters if bf16 else 0
    if trains:
        block = (2 + n_layers) * s.n_embd**2 + 3 * s.n_embd * s.n_ff
        block += (2 * s.n_head + 2 * s.n_head_kv) * s.head_dim * s.n_embd
        needed += 4 * _COPIES * (block + min(_N_DRAFT, s.n_vocab) * s.n_embd)
    needed = int(_ROOM * needed)
    check_folder(folder, needed)
    return needed


def check_folder(folder: Path, n_bytes: int) -> None:
    """That a folder is there or can be made, and has room."""
    place = folder
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise MtpError(f"{place}: not a folder; name another with --folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise MtpError(f"{place}: may not be written to; name another folder with --folder")
    free = shutil.disk_usage(place).free
    if n_bytes > free:
        raise MtpError(
            f"{folder}: needs about {n_bytes / 1e9:.1f} GB, the disk has {free / 1e9:.1f} free; "
            "name a folder on another with --folder, or fewer --tokens"
        )


def default_output(model: Path) -> Path:
    """Where mtp-chat finds the head: beside the model; in this folder where that one may not be
    written to, and for the built-in model, whose folder belongs to its package."""
    name = f"{model.stem}-mtp.gguf"
    built_in = model.samefile(models.built_in_model())
    beside = not built_in and os.access(model.parent, os.W_OK | os.X_OK)
    return model.with_name(name) if beside else Path(name)


def check_output(output: Path, model: Path, folder: Path) -> None:
    """That the head file can be written, over nothing but a head file, or a whole model that the
    folder's run wrote before."""
    check_place(output)
    if not output.exists():
        return
    if os.path.samefile(output, model) or not (is_head_file(output) or came_of(folder, output)):
        raise MtpError(
            f"{output}: exists, and is no head file, nor written from {folder} before; name "
            "another with --output"
        )


def check_room(output: Path, target: Target) -> None:
    """That the disk holds what is written where the model has heads of its own: a whole model, and
    once more with the record of what it accepts."""
    if not has_own_heads(target):
        return
    n_model = sum(part.stat().st_size for part in parts_of(target.path))
    check_free(output, n_model if output.exists() else 2 * n_model)


def is_head_file(path: Path) -> bool:
    try:
        return read_header(path).pairs.get(head_file.KEY_TYPE) == head_file.TYPE
    except MtpError:
        return False
