"""What our compiled code keeps of a head's matrices in Q8_0: Q5_1, rounded here by gguf-py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Type

from mtp_cli.engine.types import Floats

EMBEDDING = "token_embd.weight"  # is read as it is in the file


def _rounded(blocks: Any) -> Any:
    return gguf.quants.quantize(gguf.quants.dequantize(blocks, Type.Q8_0), Type.Q5_1)


def as_kept(name: str, values: Floats) -> Floats:
    """A tensor of a head, in float32, as it is computed with once a file in Q8_0 holds it."""
    if values.ndim < 2:
        return values
    blocks = gguf.quants.quantize(values, Type.Q8_0)
    if name == EMBEDDING:
        return np.asarray(gguf.quants.dequantize(blocks, Type.Q8_0))
    return np.asarray(gguf.quants.dequantize(_rounded(blocks), Type.Q5_1))


def with_kept_weights(path: Path, out: Path, *, in_floats: bool = False) -> Path:
    """A copy of a head's file that holds what is kept of it, in Q5_1 or in F32."""
    reader = gguf.GGUFReader(path)
    writer = gguf.GGUFWriter(out, reader.fields["general.architecture"].contents())
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            sub_type = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    for tensor in reader.tensors:
        data, kind = np.array(tensor.data), tensor.tensor_type
        if kind == Type.Q8_0 and tensor.name != EMBEDDING:
            data, kind = _rounded(data), Type.Q5_1
            if in_floats:
                data, kind = gguf.quants.dequantize(data, kind), Type.F32
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out
