"""A target in several files is the target in one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mtp_cli.errors import MtpError
from mtp_train.target import Target
from tests.convert.test_splits import split
from tests.engine import tiny


def test_shards_are_read_together(tmp_path: Path) -> None:
    path = tiny.llama().write(tmp_path / "whole.gguf")
    parts = split(path, tmp_path / "parts", n_tensors=3)
    assert len(parts) > 2
    whole, sharded = Target(path), Target(parts[0])
    assert sharded.sizes == whole.sizes
    assert sharded.fingerprint == whole.fingerprint
    np.testing.assert_array_equal(sharded.output, whole.output)
    with pytest.raises(MtpError, match="name the first one"):
        Target(parts[1])
