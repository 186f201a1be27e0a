"""What of a GGUF a decode multiplies by, in bytes by number format.

Owns telling matrices from what is only looked up. Knows nothing of values.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from gguf import GGMLQuantizationType

from mtp_cli.engine.files.gguf_header import read_shards

_EMBEDDING, _OUTPUT = "token_embd.weight", "output.weight"


@dataclass(frozen=True)
class Weights:
    """Bytes of the matrices that every decode reads, whatever its tokens.

    matrices:     by format, in llama.cpp's lower-case names
    experts:      likewise, of stacked matrices: a row reads those of the experts it chose
    n_file_bytes: of the file, all shards of it
    """

    matrices: dict[str, int]
    experts: dict[str, int]
    n_file_bytes: int

    @classmethod
    def of(cls, path: Path) -> Weights:
        matrices: Counter[str] = Counter()
        experts: Counter[str] = Counter()
        shards = read_shards(path)
        is_tied = not any(_OUTPUT in header.tensors for header in shards)
        for entry in (entry for header in shards for entry in header.tensors.values()):
            if len(entry.shape) > 1 and (is_tied or entry.name != _EMBEDDING):
                group = matrices if len(entry.shape) == 2 else experts
                group[GGMLQuantizationType(entry.ggml_type).name.lower()] += entry.n_bytes
        n_file_bytes = sum(header.path.stat().st_size for header in shards)
        return cls(dict(matrices), dict(experts), n_file_bytes)

    @property
    def n_bytes(self) -> int:
        return sum(self.matrices.values()) + sum(self.experts.values())

    @property
    def format(self) -> str:
        """The one that most bytes are in."""
        both = Counter(self.matrices) + Counter(self.experts)
        return both.most_common(1)[0][0] if both else ""

    def share(self, formats: Collection[str]) -> float:
        """Of all bytes, those in these formats."""
        both = (*self.matrices.items(), *self.experts.items())
        taken = sum(n for name, n in both if name in formats)
        return taken / self.n_bytes if self.n_bytes else 0.0
