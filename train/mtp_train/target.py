"""What training needs of the target's GGUF: its tables, its norms, its sizes.

Owns reading (and dequantizing) those tensors. Knows nothing of PyTorch or of llama.cpp's
runtime. Works for any architecture with `token_embd` and `output_norm`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, dequantize

from mtp_cli import head_file
from mtp_cli.engine.files.gguf_header import read_shards
from mtp_cli.engine.files.pairing import NO_LOGITS_BESIDE_FINAL_ROWS
from mtp_cli.errors import MtpError

F32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TargetSizes:
    n_embd: int
    n_layer: int
    n_vocab: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_ctx_train: int
    rms_eps: float
    rope_base: float


class Target:
    """A target's GGUF, or the first of its shards, read lazily."""

    def __init__(self, path: Path):
        try:
            readers = [GGUFReader(header.path) for header in read_shards(path)]
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise MtpError(f"{path}: not a readable GGUF; get it again") from error
        self.path = path
        self._fields = readers[0].fields
        self._tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
        self.arch = str(self._field("general.architecture"))
        self.name = str(self._field("general.name", path.stem))
        self.sizes = self._sizes()

    def _field(self, key: str, default: Any = None) -> Any:
        field = self._fields.get(key)
        if field is None:
            if default is None:
                raise MtpError(f"{self.path}: {key} is missing")
            return default
        return field.contents()

    def _own(self, key: str, default: Any = None) -> Any:
        value = self._field(f"{self.arch}.{key}", default)
        return value[-1] if isinstance(value, list) else value

    def _sizes(self) -> TargetSizes:
        n_embd, n_head = self._own("embedding_length"), self._own("attention.head_count")
        return TargetSizes(
            n_embd=n_embd,
            n_layer=self._own("block_count") - self._own("nextn_predict_layers", 0),
            n_vocab=len(self._field("tokenizer.ggml.tokens")),
            n_head=n_head,
            n_head_kv=self._own("attention.head_count_kv", n_head),
            head_dim=self._own("attention.key_length", n_embd // n_head),
            n_ff=self._own("feed_forward_length", 4 * n_embd),
            n_ctx_train=self._own("context_length"),
            rms_eps=self._own("attention.layer_norm_rms_epsilon", 1e-5),
            rope_base=self._own("rope.freq_base", 10000.0),
        )

    def tensor(self, name: str) -> F32:
        if name not in self._tensors:
            raise MtpError(f"{self.path}: tensor {name} is missing")
        return self._decoded(name, self._tensors[name].data)

    def _decoded(self, name: str, data: Any) -> F32:
        kind = self._tensors[name].tensor_type
        try:
            return np.asarray(dequantize(data, kind), np.float32)
        except NotImplementedError as error:
            raise MtpError(f"{self.path}: {name}: {kind.name} cannot be read here") from error

    def check_tables(self) -> None:
        """MtpError unless the tables that a head shares are there, of the announced sizes, and
        can be read."""
        s = self.sizes
        output = "output.weight" if "output.weight" in self._tensors else "token_embd.weight"
        tables = {"token_embd.weight": (s.n_vocab, s.n_embd), output: (s.n_vocab, s.n_embd)}
        for name, wanted in {**tables, "output_norm.weight": (s.n_embd,)}.items():
            if name not in self._tensors:
                raise MtpError(f"{self.path}: tensor {name} is missing")
            found = tuple(reversed(self._tensors[name].shape.tolist()))
            if found != wanted:
                raise MtpError(f"{self.path}: {name}: expected {wanted}, found {found}")
            self._decoded(name, self._tensors[name].data[:1])

    @property
    def n_parameters(self) -> int:
        return sum(int(tensor.n_elements) for tensor in self._tensors.values())

    @property
    def gives_final_rows(self) -> bool:
        """Whether llama.cpp gives the rows after the final norm beside the logits."""
        return self.arch not in NO_LOGITS_BESIDE_FINAL_ROWS

    @cached_property
    def token_embd(self) -> F32:
        """(n_vocab, n_embd)"""
        return self.tensor("token_embd.weight")

    @cached_property
    def output(self) -> F32:
        """(n_vocab, n_embd); the embedding table where the two are tied."""
        return self.tensor("output.weight") if "output.weight" in self._tensors else self.token_embd

    @cached_property
    def output_norm(self) -> F32:
        return self.tensor("output_norm.weight")

    @cached_property
    def fingerprint(self) -> str:
        names = (n for n in self._tensors if head_file.is_fingerprinted(n, self.sizes.n_layer))
        return head_file.fingerprint((name, self.tensor(name)) for name in names)
