"""The head file's own metadata: key names, vocabulary maps and the target's fingerprint.

A head file is a GGUF that holds one multi-token-prediction block and nothing of its target. What
llama.cpp needs to load it stands under llama.cpp's own keys; what ties it to a target stands under
the keys here. This module is the file format: the writers (`convert`, `train`) and the reader
(`mtp_cli.engine`) share it, and it knows nothing of llama.cpp, of PyTorch or of either side.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mtp_cli.errors import MtpError

VERSION = 1
TYPE = "mtp-head"

KEY_TYPE = "general.type"
KEY_VERSION = "mtp.version"
KEY_TARGET_NAME = "mtp.trunk.name"
KEY_FINGERPRINT = "mtp.trunk.fingerprint"
KEY_N_EMBD = "mtp.trunk.embedding_length"
KEY_N_VOCAB = "mtp.trunk.vocab_size"
KEY_HIDDEN = "mtp.hidden"
KEY_DRAFT_IDS = "mtp.draft_ids"
KEY_SURROGATES = "mtp.surrogates"
KEY_ADOPTS = "mtp.adopts"
KEY_FUSED_LAYERS = "mtp.fused_layers"
KEY_PROMPT_ROWS = "mtp.prompt_rows"
KEY_WITH_FINAL = "mtp.with_final"

# Which row of the target a head reads:
#   pre_norm   the residual stream before the target's output_norm, up to a positive scale per row
#   post_norm  the row after output_norm, which llama.cpp calls the embedding
#   nextn      whatever an MTP-aware architecture of llama.cpp hands its own heads
#   last_layer the row the target's last layer reads: heads that stand beside that layer
#   layers     the rows that several layers read, fused into one (`Fused`)
HiddenRow = Literal["pre_norm", "post_norm", "nextn", "last_layer", "layers"]
Ids = npt.NDArray[np.int32]

# Independent heads, which read `last_layer` rows: each is a model of one layer, a GGUF of its own
# inside the head file. This tensor of bytes is its header, and its tensors come right after it,
# under these names in the outer file's directory.
EMBEDDED_START = "head.{}."
EMBEDDED_HEADER = EMBEDDED_START + "gguf"

# The fusion, W * concat(rms_norm(row of layer i) * w_i), and with_final + rms_norm(final row) * f:
# w is len(layers) * n_embd values in F32, W (n_embd, len(layers) * n_embd), f n_embd values in F32.
# llama.cpp loads no file that has them.
FUSE_NORM = "mtp.fuse_norm.weight"
FUSE = "mtp.fuse.weight"
FINAL_NORM = "mtp.final_norm.weight"
FUSION = (FUSE_NORM, FUSE, FINAL_NORM)
FUSION_FORMATS = ("F32", "F16", "BF16", "Q8_0")  # of W
MOST_PROMPT_ROWS = 4096

_TARGET_NORM = re.compile(r"^(output_norm|blk\.(\d+)\.(attn|ffn)_norm)\.weight$")


@dataclass(frozen=True)
class DraftVocabulary:
    """The ids a head drafts in, and how they map to the target's.

    draft_ids:  (n_draft,) int32, draft id -> target id, strictly increasing
    surrogates: (n_vocab,) int32, target id -> draft id; for an id outside the draft vocabulary,
                the draft id that stands in for it on the way into the head
    """

    draft_ids: Ids
    surrogates: Ids

    def __post_init__(self) -> None:
        n_draft, n_vocab = len(self.draft_ids), len(self.surrogates)
        if n_draft == 0 or np.any(np.diff(self.draft_ids) <= 0):
            raise MtpError(f"{KEY_DRAFT_IDS}: expected strictly increasing ids, at least one")
        if self.draft_ids[0] < 0 or self.draft_ids[-1] >= n_vocab:
            raise MtpError(f"{KEY_DRAFT_IDS}: ids outside the target's vocabulary of {n_vocab}")
        if np.any(self.surrogates < 0) or np.any(self.surrogates >= n_draft):
            raise MtpError(f"{KEY_SURROGATES}: ids outside the draft vocabulary of {n_draft}")
        if np.any(self.surrogates[self.draft_ids] != np.arange(n_draft)):
            raise MtpError(f"{KEY_SURROGATES}: an id of the draft vocabulary is not its own")


@dataclass(frozen=True)
class Fused:
    """Which rows a head fuses, and how many of a prompt's it wants to see.

    layers:      indices of the layers whose input rows they are, from 1 on, strictly increasing
    prompt_rows: of a prompt's end; 0 for the last one only
    with_final:  where a row is an output, as all of an answer's are, the row after the target's
                 output_norm is added to the fused ones
    """

    layers: tuple[int, ...]
    prompt_rows: int = 0
    with_final: bool = False

    def __post_init__(self) -> None:
        pairs = zip((0, *self.layers), self.layers, strict=False)
        if not self.layers or any(before >= layer for before, layer in pairs):
            raise MtpError(f"{KEY_FUSED_LAYERS}: expected strictly increasing layers from 1 on")
        if not 0 <= self.prompt_rows <= MOST_PROMPT_ROWS:
            raise MtpError(
                f"{KEY_PROMPT_ROWS}: expected 0 to {MOST_PROMPT_ROWS}, found {self.prompt_rows}"
            )

    def metadata(self) -> dict[str, Any]:
        return {
            KEY_FUSED_LAYERS: np.array(self.layers, np.int32),
            KEY_PROMPT_ROWS: self.prompt_rows,
            KEY_WITH_FINAL: self.with_final,
        }

    @classmethod
    def from_metadata(cls, pairs: Mapping[str, Any]) -> Fused | None:
        """None for a head that fuses nothing; MtpError where the keys do not go together."""
        found = sorted({KEY_FUSED_LAYERS, KEY_PROMPT_ROWS, KEY_WITH_FINAL} & pairs.keys())
        if pairs[KEY_HIDDEN] != "layers":
            if found:
                raise MtpError(f"{found[0]}: expected with {KEY_HIDDEN} layers only")
            return None
        if KEY_FUSED_LAYERS not in pairs:
            raise MtpError(f"{KEY_FUSED_LAYERS} is missing, which {KEY_HIDDEN} layers needs")
        n_rows = pairs.get(KEY_PROMPT_ROWS, 0)
        if not isinstance(n_rows, int):
            raise MtpError(f"{KEY_PROMPT_ROWS}: expected an integer, found {n_rows!r}")
        with_final = pairs.get(KEY_WITH_FINAL, False)
        if not isinstance(with_final, bool):
            raise MtpError(f"{KEY_WITH_FINAL}: expected true or false, found {with_final!r}")
        return cls(tuple(_ids(pairs, KEY_FUSED_LAYERS).tolist()), n_rows, with_final)


Stored = tuple[tuple[int, ...], str]  # a tensor's shape, rows first, and its format's name


def check_fusion(fused: Fused | None, n_embd: int, tensors: Mapping[str, Stored]) -> None:
    """MtpError unless a head file's tensors are as its keys say: those of `FUSION` or none."""
    found = sorted(tensors.keys() & set(FUSION))
    if fused is None:
        if found:
            raise MtpError(f"{found[0]}: expected with {KEY_FUSED_LAYERS} only")
        return
    width = len(fused.layers) * n_embd
    expected = {FUSE_NORM: ((width,), ("F32",)), FUSE: ((n_embd, width), FUSION_FORMATS)}
    if fused.with_final:
        expected[FINAL_NORM] = ((n_embd,), ("F32",))
    elif FINAL_NORM in tensors:
        raise MtpError(f"{FINAL_NORM}: expected with {KEY_WITH_FINAL} only")
    for name, (shape, kinds) in expected.items():
        if name not in tensors:
            raise MtpError(f"{name} is missing, which {KEY_FUSED_LAYERS} needs")
        is_shape, kind = tensors[name]
        if is_shape != shape:
            raise MtpError(f"{name}: expected {shape}, found {is_shape}")
        if kind not in kinds:
            raise MtpError(f"{name}: expected {' or '.join(kinds)}, found {kind}")


@dataclass(frozen=True)
class HeadInfo:
    """What a head file says of the target it was made for.

    adopts: it was trained to draft in ids that its vocabulary lacks and the text holds, too, by the
            target's own rows of them; others do it where the target's rows are nearly theirs
    """

    target_name: str
    fingerprint: str
    n_embd: int
    n_vocab: int
    hidden: HiddenRow
    vocabulary: DraftVocabulary | None
    fused: Fused | None = None
    adopts: bool = False

    def metadata(self) -> dict[str, Any]:
        """The key-value pairs to write, in file order; arrays as int32."""
        pairs: dict[str, Any] = {
            KEY_VERSION: VERSION,
            KEY_TARGET_NAME: self.target_name,
            KEY_FINGERPRINT: self.fingerprint,
            KEY_N_EMBD: self.n_embd,
            KEY_N_VOCAB: self.n_vocab,
            KEY_HIDDEN: self.hidden,
        }
        if self.vocabulary is not None:
            pairs[KEY_DRAFT_IDS] = self.vocabulary.draft_ids
            pairs[KEY_SURROGATES] = self.vocabulary.surrogates
        if self.adopts:
            pairs[KEY_ADOPTS] = True
        if self.fused is not None:
            pairs |= self.fused.metadata()
        return pairs

    @classmethod
    def from_metadata(cls, pairs: Mapping[str, Any]) -> HeadInfo:
        """Read and validate the pairs of a head file; raises MtpError on what is missing or off."""
        for key in (KEY_VERSION, KEY_FINGERPRINT, KEY_N_EMBD, KEY_N_VOCAB, KEY_HIDDEN):
            if key not in pairs:
                raise MtpError(f"not a head file of this project: {key} is missing")
        for key in (KEY_VERSION, KEY_N_EMBD, KEY_N_VOCAB):
            if not isinstance(pairs[key], int):
                raise MtpError(f"{key}: expected an integer, found {pairs[key]!r}")
        if pairs[KEY_VERSION] != VERSION:
            raise MtpError(f"{KEY_VERSION}: expected {VERSION}, found {pairs[KEY_VERSION]}")
        hidden: Any = pairs[KEY_HIDDEN]
        if not any(isinstance(hidden, str) and hidden == row for row in get_args(HiddenRow)):
            expected = ", ".join(get_args(HiddenRow))
            raise MtpError(f"{KEY_HIDDEN}: expected one of {expected}, found {hidden!r}")
        if (KEY_DRAFT_IDS in pairs) != (KEY_SURROGATES in pairs):
            raise MtpError(f"expected both {KEY_DRAFT_IDS} and {KEY_SURROGATES}, or neither")
        vocabulary = None
        if KEY_DRAFT_IDS in pairs:
            vocabulary = DraftVocabulary(_ids(pairs, KEY_DRAFT_IDS), _ids(pairs, KEY_SURROGATES))
            if len(vocabulary.surrogates) != pairs[KEY_N_VOCAB]:
                raise MtpError(
                    f"{KEY_SURROGATES}: expected {pairs[KEY_N_VOCAB]} ids, "
                    f"found {len(vocabulary.surrogates)}"
                )
        adopts = pairs.get(KEY_ADOPTS, False)
        if not isinstance(adopts, bool):
            raise MtpError(f"{KEY_ADOPTS}: expected true or false, found {adopts!r}")
        return cls(
            target_name=str(pairs.get(KEY_TARGET_NAME, "")),
            fingerprint=str(pairs[KEY_FINGERPRINT]),
            n_embd=int(pairs[KEY_N_EMBD]),
            n_vocab=int(pairs[KEY_N_VOCAB]),
            hidden=hidden,
            vocabulary=vocabulary,
            fused=Fused.from_metadata(pairs),
            adopts=adopts,
        )


def _ids(pairs: Mapping[str, Any], key: str) -> Ids:
    ids = np.asarray(pairs[key])
    if ids.ndim != 1 or ids.dtype.kind not in "iu":
        raise MtpError(f"{key}: expected an array of ids")
    if np.any((ids < 0) | (ids > np.iinfo(np.int32).max)):  # before they wrap around
        raise MtpError(f"{key}: expected ids from 0 on that int32 holds")
    return ids.astype(np.int32)


def is_fingerprinted(name: str, n_target_layers: int) -> bool:
    """Whether the tensor called `name` takes part in the target's fingerprint."""
    match = _TARGET_NORM.match(name)
    return match is not None and (match[2] is None or int(match[2]) < n_target_layers)


def fingerprint(norms: Iterable[tuple[str, npt.NDArray[np.float32]]]) -> str:
    """sha256 (hex) over a target's norm tensors, sorted by name, as little-endian float32.

    Every quantization of one model keeps its norms in float32, so all of them share a
    fingerprint, while a fine-tune has its own. Pass the tensors `is_fingerprinted` chooses.
    """
    digest = hashlib.sha256()
    for name, values in sorted(norms, key=lambda pair: pair[0]):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(values, "<f4").tobytes())
    return digest.hexdigest()
