"""The allocator's settings, by the page faults of blocks that are freed and taken again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_FAULTS = """
import resource, sys
from mtp_train.allocator import keep_freed_memory

def faults_of(n_blocks):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(n_blocks):
        bytearray(64 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "keep":
    assert keep_freed_memory()
faults_of(1)
print(faults_of(4))
"""


def faults(mode: str) -> int:
    run = [sys.executable, "-c", _FAULTS, mode]
    return int(subprocess.run(run, capture_output=True, check=True, text=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_blocks_are_taken_again_without_page_faults() -> None:
    assert faults("keep") < faults("leave") / 4  # a huge page is one fault
