"""Every reader of ours, with a valid file for it and the way to damage that.

Knows nothing of processes: what a reader raises, or whether it comes back, is fuzz.py's business.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType

from mtp_cli.conversation import saved
from mtp_cli.engine.files import gguf_header, pairing, soundness
from mtp_cli.engine.sampling.recommended import Recommended
from mtp_cli.errors import MtpError
from mtp_cli.head_file import HeadInfo
from mtp_cli.paths.gguf import check_gguf
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.checkpoint.pth import read_pth
from mtp_convert.checkpoint.shard import read_header
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.detach import plan_extract, plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.pack import plan_pack
from mtp_convert.commands.trim import plan_trim
from mtp_convert.families.llama import FAMILIES
from mtp_convert.gguf.header import read_gguf
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.reuse import Wanted
from mtp_convert.gguf.splits import read_whole
from mtp_convert.gguf.write import write
from mtp_convert.tokenizer.protobuf import read_pieces
from mtp_convert.tokenizer.vocabulary import tokenizer_metadata
from tests.convert import checkpoints, checkpoints_meta, checkpoints_mtp
from tests.convert.conftest import ALL
from tests.convert.heads import write_head_file
from tests.convert.test_splits import split
from tests.convert.test_tekken import tekken
from tests.endurance import mutations as mutate


@dataclass(frozen=True)
class Reader:
    """files: what is damaged, each its own way, one of them each time; they lie in `folder`, or in
               folders of it
    read:      all that is made of them, given the folder that the damaged file lies in
    share:     how many of its inputs come to one of another's: the faster, the more
    is_native: in llama.cpp's own code, which may end the process
    """

    name: str
    folder: Path
    files: Mapping[str, mutate.Mutate]
    read: Callable[[Path], object]
    share: int = 1
    is_native: bool = False

    @cached_property
    def whole(self) -> dict[str, bytes]:
        """What is damaged, undamaged."""
        return {name: (self.folder / name).read_bytes() for name in self.files}

    def damaged(self, random: Random) -> tuple[str, bytes]:
        """The name and content of one damaged file."""
        name = random.choice([*self.files])
        return name, self.files[name](random, self.whole[name])


class Scratch:
    """Copies of the readers' folders, in each of which one file is damaged at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._damaged: dict[str, str] = {}  # reader -> file

    def damage(self, reader: Reader, random: Random) -> Path:
        """The folder of a damaged file."""
        folder = self.root / reader.name.replace("/", " ")
        before = self._damaged.get(reader.name)
        if before is None:
            shutil.copytree(reader.folder, folder)
        name, content = reader.damaged(random)
        if before not in (None, name):
            (folder / before).write_bytes(reader.whole[before])
        (folder / name).write_bytes(content)
        self._damaged[reader.name] = name
        return (folder / name).parent


def _each(*jobs: Callable[[], object]) -> None:
    """All of them, whether or not one before it refuses; MtpError where all do."""
    refusals = [refusal for refusal in map(_refusal, jobs) if refusal is not None]
    if len(refusals) == len(jobs):
        raise refusals[0]


def _refusal(job: Callable[[], object]) -> MtpError | None:
    try:
        job()
    except MtpError as error:
        return error
    return None


def _made(plan: Plan) -> None:
    """All that is written of a plan, but for the file."""
    plan.header()
    for tensor in plan.tensors:
        n_bytes = sum(map(len, tensor.blocks()))
        if n_bytes != tensor.n_bytes:
            raise RuntimeError(f"{tensor.name}: planned {tensor.n_bytes} bytes, made {n_bytes}")


def _taken_apart(folder: Path) -> None:
    path = folder / "model.gguf"
    _each(
        lambda: list(inspect_lines(path)),
        lambda: _made(plan_strip(path, Wanted("q8_0"))),
        lambda: plan_extract(path),
    )


def _packed(folder: Path) -> None:
    _made(plan_pack(folder / "target.gguf", folder / "heads.gguf"))


def _trimmed(folder: Path) -> None:
    counts = np.arange(checkpoints.N_VOCAB)
    _made(plan_trim(folder / "heads.gguf", folder / "target.gguf", counts, 8, [1]).plan)


def _native(folder: Path) -> None:
    """What the engine reads of a file before llama.cpp loads it."""
    shards = gguf_header.read_shards(folder / "model.gguf")
    gguf_header.target_fingerprint(shards)
    gguf_header.n_vocab(shards)
    soundness.check_numbers(shards[0], uses_rope=True)
    soundness.check_target(shards[0])
    if gguf_header.has_heads(shards):
        soundness.check_heads(shards)


def _paired(folder: Path) -> None:
    pairing.pair(gguf_header.read_shards(folder / "target.gguf"), folder / "heads.gguf")


def _checkpoint(folder: Path) -> None:
    """inspect, which plans what convert would write, and says why where it would not."""
    refusal = next((line for line in inspect_lines(folder) if "refuses: " in line), None)
    if refusal is not None:
        raise MtpError(refusal)


def _tokenizer(folder: Path) -> None:
    tokenizer_metadata(folder, checkpoints.N_VOCAB, FAMILIES[0], None, [])


def _head_info(folder: Path) -> None:
    values = json.loads((folder / "values.json").read_text())
    if isinstance(values, dict):
        HeadInfo.from_metadata({key: _as_gguf(value) for key, value in values.items()})


def _as_gguf(value: object) -> object:
    """A value of a kind that GGUF's parser gives."""
    if isinstance(value, bool | int | float | str):
        return value
    return np.array(value) if _is_ids(value) else str(value)


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(type(v) is int and abs(v) < 1 << 62 for v in value)


def _recommended(folder: Path) -> None:
    values = json.loads((folder / "values.json").read_text())
    if isinstance(values, dict):
        found = Recommended.from_metadata({key: str(value) for key, value in values.items()})
        found.unfollowed(found.sampling)


def _written(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path.parent


def all_readers(root: Path) -> list[Reader]:
    """Every reader; valid files for them are written into folders of `root`."""
    return [
        *_of_ggufs(root),
        *_of_checkpoints(root),
        *_of_texts(root),
    ]


def _of_ggufs(root: Path) -> list[Reader]:
    qwen = checkpoints.write_checkpoint(root / "qwen35", checkpoints_mtp.qwen35())
    llama = checkpoints.write_checkpoint(root / "llama", checkpoints.smollm())
    for name in ("model", "pair", "graft"):
        (root / name).mkdir()
    model, target = root / "model" / "model.gguf", root / "pair" / "target.gguf"
    small = Options(outtype="q4_0")  # files are written in full for each input
    write(plan_checkpoint(open_checkpoint(qwen), small), model)
    write(plan_checkpoint(open_checkpoint(llama), small), target)
    heads = write_head_file(root / "pair" / "heads.gguf", target, kind=GGMLQuantizationType.Q8_0)
    bare = root / "graft" / "target.gguf"
    write(plan_strip(model), bare)
    parts = split(bare, root / "parts", 20)
    damaged = {"model.gguf": mutate.of_gguf(model)}
    both = {file.name: mutate.of_gguf(file) for file in (target, heads)}
    graft = {"target.gguf": mutate.of_gguf(bare)}
    each = {part.name: mutate.of_gguf(part) for part in parts}
    whole = parts[0].name
    return [
        Reader("GGUF header", model.parent, damaged, lambda f: read_gguf(f / "model.gguf"), 6),
        Reader("GGUF in parts", parts[0].parent, each, lambda f: read_whole(f / whole), 2),
        Reader("inspect, strip, extract", model.parent, damaged, _taken_apart),
        Reader("pack", target.parent, both, _packed),
        Reader("trim", target.parent, both, _trimmed),
        Reader("graft", bare.parent, graft, lambda f: _made(plan_graft(f / "target.gguf", qwen))),
        Reader("GGUF, the engine's", model.parent, damaged, _native, 2, True),
        Reader("heads, the engine's", target.parent, both, _paired, 2, True),
    ]


def _of_checkpoints(root: Path) -> list[Reader]:
    small = _small_checkpoint(root / "small")
    shard = "model.safetensors"
    meta = checkpoints_meta.write_meta_checkpoint(root / "up" / "meta", checkpoints_meta.gloeckle())
    pth = root / "pth" / "x.pth"
    tiny = checkpoints.Tiny({})
    tiny.matrix("a.weight", 4, 8)
    tiny.norm("b.weight", 8)
    pth.parent.mkdir()
    checkpoints_meta.write_pth(pth, tiny.tensors, tiny.formats)
    checkpoints.write_shard(pth.with_name(shard), tiny.tensors, tiny.formats)
    families = root / "families"
    for name, (tiny_of, _, _) in ALL.items():
        checkpoints.write_checkpoint(families / name, tiny_of(), n_shards=1)
    of_params = {"params.json": mutate.of_json}
    settings = ("config.json", "tokenizer_config.json", "generation_config.json")
    folder = dict.fromkeys((*settings, "model.safetensors.index.json"), mutate.of_json)
    return [
        Reader("safetensors", pth.parent, {shard: mutate.of_safetensors},
               lambda f: read_header(f / shard), 24),
        Reader(".pth", pth.parent, {"x.pth": mutate.of_pth}, lambda f: read_pth(f / "x.pth"), 16),
        Reader("checkpoint folder", small, folder | {"README.md": mutate.of_bytes}, _checkpoint),
        Reader("config.json of a family", families,
               {f"{name}/config.json": mutate.of_json for name in ALL}, _checkpoint, 2),
        Reader("Meta's folder", meta, of_params, open_checkpoint),
    ]  # fmt: skip


def _small_checkpoint(folder: Path) -> Path:
    """With everything that people put beside the weights."""
    checkpoints.write_checkpoint(folder, checkpoints_mtp.qwen35(), n_shards=1)
    sampling = {"temperature": 0.6, "top_k": 20, "eos_token_id": [257, 259]}
    _written(folder / "generation_config.json", json.dumps(sampling))
    _written(folder / "README.md", "---\nlicense: mit\ntags: [a, b]\nbase_model: x/y\n---\ntext\n")
    return folder


def _of_texts(root: Path) -> list[Reader]:
    json_tokenizer = root / "tokenizer"
    json_tokenizer.mkdir()
    checkpoints.write_tokenizer(json_tokenizer)
    tekken_folder = _written(root / "tekken" / "tekken.json", json.dumps(tekken()))
    (root / "pieces").mkdir()
    checkpoints_meta.write_sentencepiece(root / "pieces" / "tokenizer.model")
    names = ("tokenizer.json", "tokenizer_config.json")
    conversation = saved.Conversation("Be brief.", _MESSAGES, "tiny", {"temperature": 0.5})
    talk = root / "talk" / "talk.json"
    talk.parent.mkdir()
    saved.save(talk, conversation)
    whatever = _written(root / "whatever" / "x", _WHATEVER)
    head_info = _written(root / "head" / "values.json", json.dumps(_HEAD_INFO))
    sampling = _written(root / "sampling" / "values.json", json.dumps(_SAMPLING))
    values = {"values.json": mutate.of_values_of_json}
    pieces = {"tokenizer.model": mutate.of_bytes}
    return [
        Reader("tokenizer.json", json_tokenizer, dict.fromkeys(names, mutate.of_json),
               _tokenizer, 6),
        Reader("tekken.json", tekken_folder, {"tekken.json": mutate.of_json}, _tokenizer, 4),
        Reader("SentencePiece", root / "pieces", pieces,
               lambda f: read_pieces(f / "tokenizer.model"), 12),
        Reader("saved conversation", talk.parent, {"talk.json": mutate.of_json},
               lambda f: saved.load(f / "talk.json"), 16),
        Reader("what is no GGUF", whatever, {"x": _replaced}, lambda f: check_gguf(f / "x"), 12),
        Reader("head file's keys", head_info, values, _head_info, 16),
        Reader("recommended sampling", sampling, values, _recommended, 12),
    ]  # fmt: skip


_MESSAGES: Any = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello", "reasoning": "A greeting."},
]
_WHATEVER = b"GGUF"
_BEGINNINGS = (
    b"", b"GGUF", b"version https://git-lfs.github.com/spec/v1\n", b"PK\3\4", b"\x80\2", b"tjgg",
    b"\x1f\x8b", b"<!doctype html>", b'{"config": {', b"FROM ", b"# x\nFROM \xff", bytes(64),
    (40).to_bytes(8, "little") + b"{", b"error: not found",
)  # fmt: skip
_HEAD_INFO = {
    "mtp.version": 1, "mtp.trunk.name": "x", "mtp.trunk.fingerprint": "ab", "mtp.hidden": "nextn",
    "mtp.trunk.embedding_length": 8, "mtp.trunk.vocab_size": 6, "mtp.draft_ids": [0, 2, 5],
    "mtp.surrogates": [0, 0, 1, 1, 2, 2],
}  # fmt: skip
_SAMPLING = {
    f"general.sampling.{name}": value
    for name, value in (
        ("temp", 0.6), ("top_k", 20), ("top_p", 0.9), ("min_p", 0.1), ("penalty_last_n", 64),
        ("penalty_repeat", 1.1), ("xtc_probability", 0.5), ("xtc_threshold", 0.1),
        ("mirostat", 2), ("mirostat_tau", 5.0), ("mirostat_eta", 0.1),
        ("sequence", "penalties;top_k;temperature"),
    )
}  # fmt: skip


def _replaced(random: Random, _raw: bytes) -> bytes:
    return mutate.of_bytes(random, random.choice(_BEGINNINGS) + random.randbytes(32))


def outcome(reader: Reader, folder: Path) -> str:
    """ "refused" or "read"; anything but MtpError comes out."""
    return "read" if _refusal(lambda: reader.read(folder)) is None else "refused"


def check_valid(readers: Sequence[Reader]) -> None:
    """What is undamaged is read; MtpError where it is not."""
    for reader in readers:
        for folder in dict.fromkeys((reader.folder / name).parent for name in reader.files):
            reader.read(folder)
