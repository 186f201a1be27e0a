"""The buffer types of ggml's CPU backend that a model's weights may be laid out for.

Owns the list that llama.cpp chooses from when it loads a model. A layout decides which kernels can
multiply by a weight.
"""

from __future__ import annotations

import ctypes
import functools
import itertools

from mtp_cli.engine.backend.binding import CPU_DEVICE, device_type, ggml_base, local_devices

_AMX = b"AMX"  # Intel's matrix registers, in Xeons from Sapphire Rapids on


@functools.cache
def leave_out_amx() -> None:
    """Have models loaded from now on without ggml's AMX layout. Before the first model.

    Our kernels cannot read it, and ggml's own for it are slower than ours with the rows of plain
    decoding and of drafts. A llama.cpp compiled by GCC 12 even dies of SIGILL in them
    (llama.cpp#26954): the compiler drops most of the tile configuration, since its header names 8
    of the 64 bytes that `_tile_loadconfig` reads.

    ggml fills the list when it is first asked, which is here: what has been added to its buffer
    types by then (`our_kernels.py`) is in it.
    """
    base, pointer = ggml_base(), ctypes.c_void_p
    device = next((each for each in local_devices() if device_type(each) == CPU_DEVICE), None)
    registry = device and base.ggml_backend_dev_backend_reg(device)
    name = b"ggml_backend_dev_get_extra_bufts"
    address = registry and base.ggml_backend_reg_get_proc_address(registry, name)
    if not address:  # another llama.cpp: one that finds its backends later, or lists nothing
        return
    listed = ctypes.CFUNCTYPE(ctypes.POINTER(pointer), pointer)(address)(device)
    all_types = list(itertools.takewhile(bool, (listed[index] for index in itertools.count())))
    kept = [kind for kind in all_types if base.ggml_backend_buft_name(kind) != _AMX]
    for index in range(len(all_types)):  # the list ends with NULL
        listed[index] = kept[index] if index < len(kept) else None
