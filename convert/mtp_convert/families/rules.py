"""What a model family is: tables of names, shapes and keys, and a few named transforms.

Owns the vocabulary the family files are written in. Knows nothing of any one family, of files or
of GGUF's encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal

from mtp_cli.errors import MtpError
from mtp_convert.files import reading_values
from mtp_convert.tensors.sources import Source

Dims = Mapping[str, int]
Transform = Callable[[Sequence[Source], Dims], Source]
# Checkpoint tensors that carry no weights of ours: towers of other modalities, derived buffers.
OTHER_TOWERS = (
    "visual.", "vision_tower.", "vision_model.", "vision_", "audio_", "multi_modal_projector.",
    "mm_projector.", "embed_vision.", "embed_audio.",
)  # fmt: skip
HeadKind = Literal["reused", "chained", "shared-kv", "independent"]


def copy(sources: Sequence[Source], dims: Dims) -> Source:
    """The source as it is."""
    return sources[0]


@dataclass(frozen=True)
class Rule:
    """One GGUF tensor and what it is made of.

    to:    GGUF name; `{i}` is the block
    of:    checkpoint names, all needed; `{L}` is the layer's prefix, `{i}` the layer, `{e}` stands
           for every expert
    shape: the result's shape in numpy order, names from the family's dims, e.g. "q,embd"
    how:   the transform from the sources to the result
    when:  the kinds of layer that have it ("" for all); see Family.kinds
    maybe: a checkpoint may lack it
    ranked: the transform knows what to do with FP8 scales of several ranks
    whole: its values are integers
    Rules with the same `to` are alternatives: the first whose sources all exist is used.
    """

    to: str
    of: tuple[str, ...] | str
    shape: str
    how: Transform = copy
    when: str = ""
    maybe: bool = False
    ranked: bool = False
    whole: bool = False

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.of,) if isinstance(self.of, str) else self.of


@dataclass(frozen=True)
class Heads:
    """How a family stores its MTP heads.

    prefix: of head h's layer; `{h}` counts heads, `{i}` continues the target's layers; with
            neither there is one head
    count:  config keys that announce how many there are
    rules:  the tensors a head has beside those of a layer
    single: llama.cpp's graph runs only one
    own:    what a head has of the model's tensors that are of no layer; with these, it runs from a
            file of its own only
    """

    kind: HeadKind
    prefix: str
    count: tuple[str, ...]
    rules: tuple[Rule, ...]
    single: bool = True
    memory: Literal["plain", "hybrid"] = "plain"
    own: tuple[Rule, ...] = ()

    @property
    def is_apart(self) -> bool:
        """Whether they run from a file of their own only."""
        return self.kind == "independent" or bool(self.own)


MASK = "tokenizer.ggml.mask_token_id"  # the id of a place to fill, in a drafter of blocks

# Parts of config.json whose keys stand for the whole: a text model's, a drafter's layer.
_NESTED = ("text_config", "transformer_layer_config")


@dataclass(frozen=True)
class LayerReader:
    """A drafter that reads rows of its target's layers.

    kind:     what it reads, for people
    layers:   whose input rows, by the drafter's config and the number that the target has
    n_layers: how many; None: as many as are named, and what the last one gives besides
    more:     further metadata, by the config, the names of the checkpoint's tensors and whether the
              target's positions have several axes
    """

    kind: str
    layers: Callable[[Config, int], list[int]]
    n_layers: int | None = None
    more: Callable[[Config, Collection[str], bool], Mapping[str, Any]] = (
        lambda config, names, has_mrope: {}
    )


class Config:
    """config.json with its text part on top, and errors that name the key."""

    def __init__(self, raw: Mapping[str, Any], where: str) -> None:
        self.values: dict[str, Any] = dict(raw)
        for key in _NESTED:
            part = raw.get(key)
            self.values |= part if isinstance(part, dict) else {}
        if "architectures" in raw:
            self.values["architectures"] = raw["architectures"]
        self.where = where
        self._count_layers()
        # The second is transformers 5's name; where both are there, it takes all of the first.
        ropes = [self.values.get(key) for key in ("rope_scaling", "rope_parameters")]
        self.ropes: list[dict[str, Any]] = [one for one in ropes if one and isinstance(one, dict)]
        self.rope: dict[str, Any] = self.ropes[0] if self.ropes else {}

    def _count_layers(self) -> None:
        """Folders that transformers 5 saves may hold a list of layers and not their number."""
        for key in ("layers_block_type", "layer_types", "hybrid_override_pattern"):
            kinds = self.values.get(key)
            if self.values.get("num_hidden_layers") is None and isinstance(kinds, list | str):
                self.values["num_hidden_layers"] = len(kinds)

    def find(self, *keys: str, default: Any = None) -> Any:
        for key in keys:
            if self.values.get(key) is not None:
                return self.values[key]
        return default

    def need(self, *keys: str) -> Any:
        value = self.find(*keys)
        if value is None:
            raise MtpError(f"{self.where}: {' or '.join(keys)} is missing")
        return value

    def count(self, *keys: str, default: int | None = None) -> int:
        """A non-negative integer of a sane size."""
        value = self.need(*keys) if default is None else self.find(*keys, default=default)
        if type(value) is not int or not 0 <= value < 1 << 31:
            raise MtpError(f"{self.where}: {keys[0]}: expected a count, found {str(value)[:40]}")
        return value

    def whole(self, *keys: str) -> int | None:
        """An integer where the config has one; a GGUF's key has that type or none."""
        value = self.find(*keys)
        if value is not None and type(value) is not int:
            raise self._unexpected(keys[0], "an integer", value)
        return value

    def flag(self, *keys: str) -> bool | None:
        """The same for yes and no."""
        value = self.find(*keys)
        if value is not None and value not in (0, 1):
            raise self._unexpected(keys[0], "true or false", value)
        return None if value is None else bool(value)

    def _unexpected(self, key: str, wanted: str, value: object) -> MtpError:
        return MtpError(
            f"{self.where}: {key}: holds a value of an unexpected kind: expected {wanted}, found "
            f"{str(value)[:40]}"
        )

    def number(self, *keys: str, default: float | None = None) -> float:
        value = self.need(*keys) if default is None else self.find(*keys, default=default)
        if type(value) not in (int, float):
            raise MtpError(f"{self.where}: {keys[0]}: expected a number, found {str(value)[:40]}")
        return float(value)

    def rope_value(self, *keys: str, default: float | None = None) -> float | None:
        """A rope parameter, from rope_parameters (new) or the top level (old)."""
        scope = self.rope.get("full_attention", self.rope)
        for key in keys:
            if isinstance(scope, dict) and scope.get(key) is not None:
                return float(scope[key])
        value = self.find(*keys)
        return default if value is None else float(value)

    def per_layer(self, key: str, n_layers: int) -> list[Any]:
        """A list with one entry for each layer."""
        values = self.need(key)
        if not isinstance(values, list) or len(values) < n_layers:
            raise MtpError(f"{self.where}: {key}: expected {n_layers} entries")
        return values[:n_layers]


def reading(config: Config) -> AbstractContextManager[None]:
    """Around a family's reading of a config, and its arithmetic with what it read."""
    return reading_values(config.where)


@dataclass(frozen=True)
class Family:
    """Everything the converter knows of one family of checkpoints.

    metadata(config, n_heads) gives GGUF keys; `{arch}.` stands for the architecture
    dims(config, i) gives the sizes that shapes and transforms name, for layer i
    kinds(config, i) gives the kinds of layer i; heads are asked with i >= the target's layers
    """

    name: str
    classes: tuple[str, ...]
    arch: str
    rules: tuple[Rule, ...]
    layer_rules: tuple[Rule, ...]
    metadata: Callable[[Config, int], Mapping[str, Any]]
    dims: Callable[[Config, int], Dims]
    kinds: Callable[[Config, int], frozenset[str]] = lambda config, i: frozenset()
    heads: Heads | None = None
    is_beside: bool = False  # heads that are a model of their own, in a checkpoint of their own
    reads: LayerReader | None = None  # such heads, where they read rows of their target's layers
    # Whether a checkpoint is of this family that names another's class.
    claims: Callable[[Config], bool] = lambda config: False
    layer_prefix: str = "model.layers.{i}"
    renames: tuple[tuple[str, str], ...] = (("language_model.", ""),)
    ignored: tuple[str, ...] = OTHER_TOWERS
    extra: Callable[[Config], Mapping[str, Source]] = lambda config: {}
    accepts: Callable[[Config], str | None] = lambda config: None
    # Kinds of scaled rotary embeddings that its graph computes (`rope.py`), and those in sliding
    # layers where these have their own; None for a family without positions.
    ropes: frozenset[str] | None = frozenset({"default", "linear", "yarn"})
    sliding_ropes: frozenset[str] | None = None
    # Activations of the feed-forward networks that its graph computes, as configs name them.
    activations: frozenset[str] = frozenset({"silu", "swish"})
    has_windows: bool = False  # whether its graph knows sliding attention
    # What llama.cpp calls the pre-tokenizer, where two share their rules; and special tokens that
    # config files leave out: (what GGUF calls it, its text).
    pre_tokenizer: str = ""
    special_tokens: tuple[tuple[str, str], ...] = ()
    # Special tokens that are shown all the same: the marks a chat parser reads.
    visible_tokens: tuple[str, ...] = ()
    # Whether generation_config.json's suppress_tokens, which are never to be chosen, come along.
    suppresses: bool = False
    # What llama.cpp calls a tokenizer.json of characters with bytes as a last resort, where it has
    # a kind of its own for the family's.
    character_tokenizer: str = ""
    notes: str = field(default="")

    def rename(self, name: str) -> str:
        for old, new in self.renames:
            if old in name:
                name = name.replace(old, new, 1)
        return name
