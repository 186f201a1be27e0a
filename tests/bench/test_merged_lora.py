"""A merged random LoRA changes layers' matrices, and nothing that heads are paired by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, dequantize

from benchmarks.merged_lora import Change, plan_merged
from mtp_convert.gguf.model import open_model
from mtp_convert.gguf.write import write
from tests.engine import tiny


def test_only_matrices_from_the_first_layer_on_change_and_as_much_as_asked(tmp_path: Path) -> None:
    spec = tiny.llama(n_blocks=8).quantized(GGMLQuantizationType.Q8_0)
    base, out = spec.write(tmp_path / "base.gguf"), tmp_path / "out.gguf"
    write(plan_merged(open_model(base), Change(0.2, 4, 2, 1)), out)
    assert open_model(out).fingerprint() == open_model(base).fingerprint()
    sizes = []
    for old, new in zip(GGUFReader(base).tensors, GGUFReader(out).tensors, strict=True):
        assert (new.name, new.tensor_type) == (old.name, old.tensor_type)
        is_changed = old.data.tobytes() != new.data.tobytes()
        block = int(old.name.split(".")[1]) if old.name.startswith("blk.") else 0
        assert is_changed == (block >= 2 and len(old.shape) > 1)
        if is_changed:
            before, after = (dequantize(t.data, t.tensor_type) for t in (old, new))
            sizes.append(np.linalg.norm(after - before) / np.linalg.norm(before))
    assert 0.15 < np.mean(sizes) < 0.25
    assert max(sizes) < 0.45
