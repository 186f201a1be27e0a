"""Runs native code that recurses deeply where it has room to."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

Result = TypeVar("Result")

_PAGE = 4096


def on_deep_stack(n_bytes: int, call: Callable[[], Result]) -> Result:
    """What `call` returns or raises, run with a stack of `n_bytes`; memory is used as touched."""
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    before = threading.stack_size(-(-n_bytes // _PAGE) * _PAGE)
    try:
        thread = threading.Thread(target=run)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]
