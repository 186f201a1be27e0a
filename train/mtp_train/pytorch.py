"""PyTorch, which only training needs: whether it is there, and how it gets there.

A module of its own, so that the command line can say so without loading anything else.
"""

from __future__ import annotations

import importlib
from typing import Any

from mtp_cli.errors import MtpError

# The package is on no index: this is for a clone.
INSTALL_TORCH = ".venv/bin/pip install -c constraints.txt -e '.[train]'"
NO_TORCH = f"PyTorch is needed; in a clone of mtp-cli: {INSTALL_TORCH}"


def check_torch(device: str) -> None:
    """That PyTorch loads, and has the device."""
    try:
        torch: Any = importlib.import_module("torch")
    except ModuleNotFoundError as error:
        raise MtpError(NO_TORCH) from error
    except (ImportError, OSError) as error:
        raise MtpError(f"PyTorch does not load: {str(error).splitlines()[0]}") from error
    if device == "auto":
        return
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = (str(error).splitlines() or [""])[0][:100]
        raise MtpError(f"--device {device}: PyTorch cannot use it: {reason}") from error
