"""EAGLE-3 checkpoints of all layouts become files that draft as their tensors say."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.drafters.fused import FusedDrafter
from mtp_cli.engine.types import Floats
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.cli import app
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.commands.trial import try_heads
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import EMBD, N_VOCAB, Tiny, write_checkpoint
from tests.convert.checkpoints_eagle3 import BUILDERS, LAYERS, N_DRAFT, target
from tests.engine import tiny as tiny_models
from tests.engine import tiny_eagle3
from tests.engine.drafters.numpy_eagle3 import NumpyEagle3, draft_logits
from tests.engine.drafters.recorder import recorder

TEXT = tiny_models.random_ids(60, seed=81)
ROWS = np.random.default_rng(82).normal(0, 2, (60, len(LAYERS) * EMBD)).astype(np.float32)
TOLERANCE = 0.02  # of the deviation of a row's logits: keys and values are kept in F16
GREEDY = Sampling(temperature=0.0)
NAMED = "eagle_aux_hidden_state_layer_ids"
NAMES = {
    "fc.weight": "fc.weight", "norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight", "embed_tokens.weight": "token_embd.weight",
    "input_norm.weight": "enc.output_norm.weight", "input_layernorm.weight": "attn_norm.weight",
    "hidden_norm.weight": "attn_norm_2.weight", "post_attention_layernorm.weight":
    "ffn_norm.weight", "self_attn.q_proj.weight": "attn_q.weight",
    "self_attn.k_proj.weight": "attn_k.weight", "self_attn.v_proj.weight": "attn_v.weight",
    "self_attn.o_proj.weight": "attn_output.weight", "mlp.gate_proj.weight": "ffn_gate.weight",
    "mlp.up_proj.weight": "ffn_up.weight", "mlp.down_proj.weight": "ffn_down.weight",
}  # fmt: skip
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """The folders of the target and of a drafter, which has no tokenizer."""
    root = tmp_path_factory.mktemp("eagle3")
    write_checkpoint(root / "target", target())

    def make(layout: str) -> Pair:
        write_checkpoint(root / layout, BUILDERS[layout](), tokenizer=False)
        return root / "target", root / layout

    return make


@pytest.fixture(scope="module")
def files(
    folders: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Pair]:
    root = tmp_path_factory.mktemp("converted")

    def make(layout: str) -> Pair:
        target, drafter = folders(layout)
        found = root / "target.gguf", root / f"{layout}.gguf"
        if not found[0].exists():
            write(plan_checkpoint(open_checkpoint(target), Options(outtype="f32")), found[0])
        options = Options(outtype="f32", target=target)
        write(plan_checkpoint(open_checkpoint(drafter), options), found[1])
        return found

    return make


class Halves(NumpyEagle3):
    """As Hugging Face's Llama has it: a pair's values lie half a head apart."""

    def _turned(self, heads: Floats) -> Floats:
        half = heads.shape[1] // 2
        angles = self._position * 10_000.0 ** (-np.arange(half) / half)
        left, right = heads[:, :half], heads[:, half:]
        cos, sin = np.cos(angles), np.sin(angles)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=1)


def spec_of(tiny: Tiny) -> tiny_models.Spec:
    """The checkpoint's own tensors by llama.cpp's names, for the numpy forward to read."""
    tensors = {}
    for name, values in tiny.tensors.items():
        short = name.removeprefix("midlayer.").removeprefix("layers.0.")
        if short in NAMES:
            tensors["blk.0." * (short != name) + NAMES[short]] = values.astype(np.float32)
    keys = {
        "eagle3.norm_before_fc": bool(tiny.config.get("norm_before_fc")),
        "eagle3.norm_before_residual": bool(tiny.config.get("norm_before_residual")),
        "eagle3.attention.layer_norm_rms_epsilon": 1e-6,
        "eagle3.vocab_size": N_VOCAB,
    }
    integers = {}
    if "d2t" in tiny.tensors:
        integers["d2t"] = tiny.tensors["d2t"] + np.arange(N_DRAFT)
    return tiny_models.Spec("eagle3", keys, tensors, integers=integers)


def spec_of_target() -> tiny_models.Spec:
    tensors = target().tensors
    own = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}
    return tiny_models.Spec("llama", {}, {to: tensors[name] for to, name in own.items()})


@pytest.mark.parametrize("layout", BUILDERS)
def test_it_drafts_what_its_tensors_say(layout: str, files: Callable[[str], Pair]) -> None:
    propose, seen = recorder()

    with Engine.open(*files(layout), n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        drafter = engine._timeline.drafter
        assert isinstance(drafter, FusedDrafter)
        drafter.observe(TEXT[:40], 0, ROWS[:40])
        drafted = drafter.draft(TEXT[40], 3, propose=propose).ids
    spec = spec_of(BUILDERS[layout]())
    wanted = draft_logits(spec, spec_of_target(), TEXT[1:41], ROWS[:40], 0, drafted[:-1], of=Halves)
    for found, expected in zip(seen, wanted, strict=True):
        can_be = np.isfinite(expected)
        assert np.array_equal(can_be, np.isfinite(found))
        off = np.abs(found[can_be] - expected[can_be]).max() / expected[can_be].std()
        assert off < TOLERANCE


@pytest.mark.parametrize("layout", BUILDERS)
def test_greedy_text_is_the_same_with_and_without(
    layout: str, files: Callable[[str], Pair]
) -> None:
    texts = []
    for given in (files(layout), files(layout)[:1]):
        with Engine.open(*given, n_ctx=256, n_threads=1, n_gpu_layers=0) as engine:
            run = engine.generate(TEXT, GREEDY, max_tokens=60, depth=3 * (len(given) - 1))
            texts.append([token for tokens in run for token in tokens])
    assert texts[0] == texts[1]


def test_the_targets_gguf_will_do(
    folders: Callable[[str], Pair], files: Callable[[str], Pair], tmp_path: Path
) -> None:
    """To the byte: its tokenizer and its layers are there too."""
    given, wanted = files("specforge")
    arguments = ["convert", str(folders("specforge")[1]), "--target", str(given)]
    out = tmp_path / "eagle3-x.gguf"
    done = CliRunner().invoke(app, [*arguments, "-o", str(out), "--outtype", "f32"])
    assert done.exit_code == 0, done.exception
    ours, theirs = GGUFReader(out), GGUFReader(wanted)
    assert [t.data.tobytes() for t in ours.tensors] == [t.data.tobytes() for t in theirs.tensors]
    assert {k: f.contents() for k, f in ours.fields.items() if k.startswith("tokenizer.")} == {
        k: f.contents() for k, f in theirs.fields.items() if k.startswith("tokenizer.")
    }


def test_the_file_is_as_llama_cpps_converter_has_it(files: Callable[[str], Pair]) -> None:
    reader = GGUFReader(files("speculators")[1])
    said = {key: field.contents() for key, field in reader.fields.items()}
    assert said["general.architecture"] == "eagle3"
    assert said["eagle3.target_layers"] == LAYERS
    assert said["eagle3.target_hidden_size"] == EMBD
    assert said["eagle3.norm_before_residual"] is True
    assert said["eagle3.norm_before_fc"] is True
    assert said["eagle3.block_count"] == 1
    assert len(said["tokenizer.ggml.tokens"]) == said["eagle3.vocab_size"] == N_VOCAB
    ids = next(t for t in reader.tensors if t.name == "d2t")
    apart = BUILDERS["speculators"]().tensors["d2t"]
    assert ids.data.dtype == np.int64
    assert np.array_equal(ids.data, apart + np.arange(N_DRAFT))


def test_inspect_shows_folder_and_file(
    folders: Callable[[str], Pair], files: Callable[[str], Pair]
) -> None:
    lines = [*inspect_lines(folders("specforge")[1])]
    assert lines[1:4] == [
        f"heads: one model (fused rows), 1 layers, width 48, vocabulary {N_VOCAB}",
        "runs in: mtp-chat --heads, beside its target, after mtp-convert convert",
        "convert needs: --target, the folder or GGUF of the model it drafts for",
    ]
    lines = [*inspect_lines(files("specforge")[1])]
    assert lines[1:3] == [
        "heads: one model (EAGLE-3, rows of layers 2, 3, 4, 200 ids)",
        "runs in: mtp-chat --heads, beside its target",
    ]


def test_inspect_shows_a_file_whose_layers_are_no_list(tmp_path: Path) -> None:
    spec = tiny_eagle3.drafter(n_draft=120)
    spec.keys["eagle3.target_layers"] = 2
    lines = [*inspect_lines(spec.write(tmp_path / "drafter.gguf"))]
    assert lines[1] == "heads: one model (EAGLE-3, rows of layers ?, 120 ids)"


def test_check_drafts_with_it(files: Callable[[str], Pair], tmp_path: Path) -> None:
    tried = try_heads(*files("specforge"), n_tokens=12)
    assert tried.drafter == "specforge.gguf, EAGLE-3 drafter, 200 ids"
    assert tried.verified[0] > 0
    assert tried.n_differing == 0
    narrow = tiny_eagle3.drafter()
    narrow.keys["eagle3.target_hidden_size"] = 32
    given = files("specforge")[0], narrow.write(tmp_path / "narrow.gguf")
    done = CliRunner().invoke(app, ["check", str(given[0]), "--heads", str(given[1])])
    assert "made for rows of width 32, target.gguf has 64" in str(done.exception)


@pytest.mark.parametrize(
    ("config", "read"),
    [
        ({"eagle_config": {NAMED: [1, 2, 3]}}, [2, 3, 4]),  # outputs
        ({"eagle_config": {NAMED: [2, 3, 4]}}, [2, 3, 4]),
        ({NAMED: [1, 2, 3]}, [1, 2, 3]),
        ({NAMED: [1, 2, 4], "eagle_config": {NAMED: [1, 2, 3]}}, [1, 2, 4]),
    ],
)
def test_layers_are_counted_as_who_trained_it_counts(
    config: dict[str, object], read: list[int], folders: Callable[[str], Pair], tmp_path: Path
) -> None:
    given = folders("specforge")[0]
    write_checkpoint(tmp_path / "it", _config(**{"eagle_config": None, **config}), tokenizer=False)
    out = tmp_path / "it.gguf"
    write(plan_checkpoint(open_checkpoint(tmp_path / "it"), Options(target=given)), out)
    assert GGUFReader(out).fields["eagle3.target_layers"].contents() == read


def refused(tiny: Tiny, folder: Path, target: Path | None) -> str:
    write_checkpoint(folder, tiny, tokenizer=False)
    with pytest.raises(MtpError) as caught:
        plan_checkpoint(open_checkpoint(folder), Options(target=target))
    line = str(caught.value)
    assert "\n" not in line
    return line


def _config(**more: object) -> Tiny:
    tiny = BUILDERS["specforge"]()
    tiny.config.update(more)
    return tiny


def _far_ids() -> Tiny:
    tiny = BUILDERS["specforge"]()
    tiny.tensors["d2t"][-1] = N_VOCAB
    return tiny


def _twice() -> Tiny:
    tiny = BUILDERS["specforge"]()
    tiny.tensors["d2t"][1] = tiny.tensors["d2t"][0] - 1
    return tiny


def _without(name: str) -> Tiny:
    tiny = BUILDERS["specforge"]()
    tiny.drop(name)
    return tiny


LATE = {NAMED: [1, 2, 4]}
REFUSED: dict[str, tuple[Callable[[], Tiny], str]] = {
    "a layer too late": (
        lambda: _config(eagle_config=LATE),
        "layers to read: expected 3 increasing ones from 1 to 4, found [2, 3, 5]",
    ),
    "layers nobody names": (
        lambda: _config(eagle_config=None),
        "layers to read: expected 3 increasing ones from 1 to 4, found [2, 2, 2]",
    ),
    "layers that are words": (
        lambda: _config(eagle_config={NAMED: [1, "two", 3]}),
        "layers to read: expected 3 increasing ones from 1 to 4, found [1, 'two', 3]",
    ),
    "another width": (
        lambda: _config(target_hidden_size=80),
        "fc.weight from fc.weight: expected (48, 240) by config.json, found (48, 192)",
    ),
    "two layers": (lambda: _config(num_hidden_layers=2), "2 layers; llama.cpp's graph has one"),
    "ids beyond the target's": (_far_ids, "d2t: ids outside the target's vocabulary of 320"),
    "an id twice": (_twice, "d2t: two drafted ids stand for one of the target's"),
    "no map": (
        lambda: _without("d2t"),
        "d2t is missing: of 320 ids 200 are drafted, and nothing says which",
    ),
    "no fusion": (lambda: _without("fc."), "fc.weight is missing (EAGLE-3 needs it for fc.weight)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_is_wrong(
    case: str, folders: Callable[[str], Pair], tmp_path: Path
) -> None:
    build, line = REFUSED[case]
    assert refused(build(), tmp_path / "wrong", folders("specforge")[0]).endswith(line)


def test_its_target_is_needed_and_must_fit(tmp_path: Path) -> None:
    line = refused(BUILDERS["specforge"](), tmp_path / "a", None)
    assert line.endswith("give the target's folder or GGUF with --target")
    other = target()
    other.config["hidden_size"] = 80
    folder = write_checkpoint(tmp_path / "other", other)
    line = refused(BUILDERS["specforge"](), tmp_path / "b", folder)
    assert line.endswith(f"this drafter was made for rows of width 64, {folder} has 80")
    line = refused(target(), tmp_path / "c", folder)
    assert line.endswith("has its own tokenizer; leave out --target")
