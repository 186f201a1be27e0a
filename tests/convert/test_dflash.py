"""DFlash and DSpark checkpoints of all layouts become the GGUF that llama.cpp drafts blocks with.

That they are those of its own converter, `test_oracle_drafters.py` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from mtp_cli.engine import Engine, Sampling
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.types import Floats, Ids
from mtp_cli.errors import MtpError
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.cli import app
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import EMBD, N_VOCAB, WIDTH, Array, Tiny, write_checkpoint
from tests.convert.checkpoints_dflash import (
    BUILDERS,
    GROUP,
    LAYERS,
    MASK,
    N_BLOCK,
    N_DRAFT,
    N_LAYERS,
    N_TAPS,
    RANK,
    TOP_K,
)
from tests.convert.checkpoints_eagle3 import target
from tests.engine import tiny as tiny_models
from tests.engine.drafters.numpy_block import NumpyBlock

TEXT = tiny_models.random_ids(41, seed=81)
ROWS = np.random.default_rng(82).normal(0, 2, (40, len(LAYERS) * EMBD)).astype(np.float32)
TOLERANCE = 0.02  # of the deviation of a row's logits: keys and values are kept in F16
GREEDY = Sampling(temperature=0.0)

ROOT = {
    "fc": "fc.weight", "encoder.fc": "fc.weight", "hidden_norm": "enc.output_norm.weight",
    "encoder.output_norm_enc": "enc.output_norm.weight", "norm": "output_norm.weight",
    "embed_tokens": "token_embd.weight", "lm_head": "output.weight",
    "candidate_selector.predecessor_codebook": "selector_predecessor.weight",
    "candidate_selector.successor_codebook": "selector_successor.weight",
    "candidate_selector.hidden_projection": "selector_hidden.weight",
    "markov_head.markov_w1": "markov_w1.weight", "markov_head.markov_w2": "markov_w2.weight",
    "confidence_head.proj": "conf_proj.weight", "confidence_proj": "conf_proj.weight",
    "confidence_head.proj.bias": "conf_proj.bias",
}  # fmt: skip
LAYER = {
    "input_layernorm": "attn_norm.weight", "self_attn.q_proj": "attn_q.weight",
    "post_attention_layernorm": "ffn_norm.weight", "self_attn.k_proj": "attn_k.weight",
    "self_attn.v_proj": "attn_v.weight", "self_attn.o_proj": "attn_output.weight",
    "self_attn.q_norm": "attn_q_norm.weight", "self_attn.k_norm": "attn_k_norm.weight",
    "self_attn.attention_sink_bias": "attn_sinks.weight", "mlp.gate_proj": "ffn_gate.weight",
    "mlp.up_proj": "ffn_up.weight", "mlp.down_proj": "ffn_down.weight",
    "attention_conv.base_kernel": "attn_conv_base", "mlp_conv.base_kernel": "ffn_conv_base",
    "attention_conv.kernel_projection": "attn_conv_proj.weight",
    "mlp_conv.kernel_projection": "ffn_conv_proj.weight",
}  # fmt: skip
GEMMA4_LAYER = {
    **LAYER, "post_attention_layernorm": "post_attention_norm.weight",
    "pre_feedforward_layernorm": "ffn_norm.weight", "layer_scalar": "layer_output_scale.weight",
    "post_feedforward_layernorm": "post_ffw_norm.weight",
}  # fmt: skip
TURNED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.q_norm", "self_attn.k_norm")
Pair = tuple[Path, Path]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """The folders of the target and of a drafter, which has no tokenizer."""
    root = tmp_path_factory.mktemp("dflash")
    write_checkpoint(root / "target", target())

    def make(layout: str) -> Pair:
        write_checkpoint(root / layout, BUILDERS[layout](), tokenizer=False)
        return root / "target", root / layout

    return make


@pytest.fixture(scope="module")
def file(
    folders: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    root = tmp_path_factory.mktemp("converted")

    def make(layout: str, outtype: str = "f32") -> Path:
        target, drafter = folders(layout)
        out = root / f"{layout}-{outtype}.gguf"
        if not out.exists():
            options = Options(outtype=outtype, target=target)
            write(plan_checkpoint(open_checkpoint(drafter), options), out)
        return out

    return make


@pytest.fixture(scope="module")
def target_file(folders: Callable[[str], Pair], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("target") / "target.gguf"
    options = Options(outtype="f32")
    write(plan_checkpoint(open_checkpoint(folders("authors")[0]), options), out)
    return out


def halves(rows: Array) -> Array:
    """Each head's even rows, then its odd ones."""
    heads = rows.reshape(-1, WIDTH, *rows.shape[1:])
    return np.concatenate([heads[:, 0::2], heads[:, 1::2]], axis=1).reshape(rows.shape)


def expected(layout: str) -> dict[str, Array]:
    """The checkpoint's own tensors by llama.cpp's names."""
    found, tiny = {}, BUILDERS[layout]()
    for name, values in tiny.tensors.items():
        short = name.removeprefix("model.").removesuffix(".weight")
        if short.startswith("layers."):
            _, block, part = short.split(".", 2)
            to = (GEMMA4_LAYER if layout == "gemma4" else LAYER)[part]
            is_turned = layout == "pairs" and part in TURNED
            found[f"blk.{block}.{to}"] = halves(values) if is_turned else values
        elif short in ROOT:
            found[ROOT[short]] = values
    if "d2t" in tiny.tensors:
        found["d2t"] = tiny.tensors["d2t"] + np.arange(N_DRAFT)
    if layout == "deepspec":  # its embedding again
        del found["output.weight"]
    if layout == "gemma4":  # whose heads turn a quarter
        found["rope_freqs.weight"] = np.array([1.0] * 4 + [1e30] * 12, np.float32)
    return found


@pytest.mark.parametrize("layout", BUILDERS)
def test_its_tensors_are_the_checkpoints(layout: str, file: Callable[[str], Path]) -> None:
    wanted = expected(layout)
    found = {tensor.name: tensor.data for tensor in GGUFReader(file(layout)).tensors}
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert np.array_equal(found[name].ravel(), values.astype(found[name].dtype).ravel()), name
        assert values.ndim == 1 or found[name].shape == values.shape


@pytest.mark.parametrize("outtype", ["f32", "q8_0"])
@pytest.mark.parametrize("layout", BUILDERS)
def test_llama_cpp_loads_it(layout: str, outtype: str, file: Callable[..., Path]) -> None:
    model = Model(file(layout, outtype), n_gpu_layers=0)
    assert model.n_embd == EMBD
    assert model.n_vocab == N_VOCAB
    model.close()


ALL = {"block_size": N_BLOCK, "target_layers": LAYERS, "block_count": 2}
KEYS: dict[str, dict[str, object]] = {
    "authors": {"attention.causal": None, "sample_from_anchor": None, "conv_kernel_size": None},
    "windows": {
        "attention.causal": True, "attention.sliding_window": 16, "attention.value_scale": 0.5,
        "attention.sliding_window_pattern": [True, True], "rope.dimension_count": WIDTH // 2,
    },
    "two": {
        "conv_kernel_size": N_TAPS, "conv_group_size": GROUP, "selector_rank": RANK,
        "selector_top_k": TOP_K, "final_logit_softcapping": 30.0, "embedding_scale": 2.0,
        "logit_scale": 0.5, "attention.sliding_window": 16,
        "attention.sliding_window_pattern": [True, False],
    },
    "nested": {"sample_from_anchor": None},
    "deepspec": {"sample_from_anchor": True, "has_confidence_head": True},
    "speculators": {"sample_from_anchor": False, "has_confidence_head": True},
    "pairs": {"sample_from_anchor": True, "has_confidence_head": False},
    "gemma4": {
        "attention.head_count_kv": 1, "attention.key_length": 2 * WIDTH, "embedding_scale": 8.0,
        "attention.scale": 1.0, "hidden_activation": "gelu_pytorch_tanh",
        "rope.dimension_count": 2 * WIDTH, "attention.sliding_window": None,
        "sample_from_anchor": True, "has_confidence_head": True,
    },
    "muse": {"attention.sliding_window": 16, "attention.sliding_window_pattern": [True, True]},
}  # fmt: skip


@pytest.mark.parametrize("layout", KEYS)
def test_its_metadata_is_what_llama_cpps_graph_asks(
    layout: str, file: Callable[[str], Path]
) -> None:
    said = {key: field.contents() for key, field in GGUFReader(file(layout)).fields.items()}
    assert said["general.architecture"] == "dflash"
    assert said["tokenizer.ggml.mask_token_id"] == MASK
    assert len(said["tokenizer.ggml.tokens"]) == N_VOCAB
    for key, value in {**ALL, **KEYS[layout]}.items():
        assert said.get(f"dflash.{key}") == value, key


def test_what_the_last_layer_gives_may_be_read(
    folders: Callable[[str], Pair], tmp_path: Path
) -> None:
    """Some targets hand it on."""
    tiny = BUILDERS["authors"]()
    tiny.config["dflash_config"] |= {"target_layer_ids": [0, 2, 3]}
    folder, out = write_checkpoint(tmp_path / "x", tiny, tokenizer=False), tmp_path / "x.gguf"
    write(plan_checkpoint(open_checkpoint(folder), Options(target=folders("authors")[0])), out)
    assert GGUFReader(out).fields["dflash.target_layers"].contents() == [1, 3, 4]


def spec_of(layout: str) -> tiny_models.Spec:
    """The checkpoint's own tensors by llama.cpp's names, for the numpy forward to read."""
    tensors = {k: v.astype(np.float32) for k, v in expected(layout).items()}
    keys = {
        "dflash.attention.layer_norm_rms_epsilon": 1e-6, "dflash.block_count": N_LAYERS,
        "dflash.block_size": N_BLOCK, "dflash.vocab_size": N_VOCAB,
        "dflash.sample_from_anchor": layout != "speculators",
        "tokenizer.ggml.mask_token_id": MASK,
    }  # fmt: skip
    integers = {"d2t": tensors.pop("d2t").astype(np.int64)} if "d2t" in tensors else {}
    if "markov_w1.weight" in tensors:
        tensors.setdefault("conf_proj.bias", np.zeros(1, np.float32))
    if layout == "deepspec":
        tensors["output.weight"] = tensors["token_embd.weight"]
    return tiny_models.Spec("dflash", keys, tensors, integers=integers)


@pytest.mark.parametrize("layout", ["authors", "nested", "deepspec", "speculators", "pairs"])
def test_it_drafts_what_its_tensors_say(
    layout: str, file: Callable[[str], Path], target_file: Path
) -> None:
    seen: list[Floats] = []

    def propose(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        seen.append(logits.copy())
        return likeliest(logits, ids, drafted, prob)

    with Engine.open(target_file, file(layout), n_ctx=128, n_threads=1, n_gpu_layers=0) as engine:
        drafter = engine._timeline.drafter
        drafter.observe(TEXT[:40], 0, ROWS)
        drafted = drafter.draft(TEXT[40], N_BLOCK, propose=propose).ids
    own = {"token_embd.weight": "model.embed_tokens.weight", "output.weight": "lm_head.weight"}
    tensors = {to: target().tensors[name] for to, name in own.items()}
    expected = NumpyBlock(spec_of(layout), tiny_models.Spec("llama", {}, tensors))
    expected.take(ROWS, 0)
    places = expected.draft(TEXT[40], 40, drafted)
    assert len(places) == len(seen) >= N_BLOCK - 1
    for found, place in zip(seen, places, strict=True):
        can_be = np.isfinite(place.logits)
        assert np.array_equal(can_be, np.isfinite(found))
        off = np.abs(found[can_be] - place.logits[can_be]).max() / place.logits[can_be].std()
        assert off < TOLERANCE


@pytest.mark.parametrize("layout", BUILDERS)
def test_greedy_text_is_the_same_with_and_without(
    layout: str, file: Callable[[str], Path], target_file: Path
) -> None:
    texts = []
    for heads in (file(layout), None):
        with Engine.open(target_file, heads, n_ctx=256, n_threads=1, n_gpu_layers=0) as engine:
            run = engine.generate(TEXT, GREEDY, max_tokens=40, depth=3 if heads else 0)
            texts.append([token for tokens in run for token in tokens])
            if heads:
                assert sum(run.stats.verified) > 40
    assert texts[0] == texts[1]


def test_the_targets_gguf_will_do(
    folders: Callable[[str], Pair],
    file: Callable[[str], Path],
    target_file: Path,
    tmp_path: Path,
) -> None:
    """To the byte: its tokenizer and its layers are there too."""
    drafter, out = folders("speculators")[1], tmp_path / "dspark-x.gguf"
    arguments = ["convert", str(drafter), "--target", str(target_file), "-o", str(out)]
    done = CliRunner().invoke(app, [*arguments, "--outtype", "f32"])
    assert done.exit_code == 0, done.exception
    ours, theirs = GGUFReader(out), GGUFReader(file("speculators"))
    assert [t.data.tobytes() for t in ours.tensors] == [t.data.tobytes() for t in theirs.tensors]
    said, wanted = (
        {k: f.contents() for k, f in reader.fields.items() if k.startswith(("dflash.", "token"))}
        for reader in (ours, theirs)
    )
    assert said == wanted


def test_a_target_whose_positions_have_axes(folders: Callable[[str], Pair], tmp_path: Path) -> None:
    """llama.cpp gives such drafters all their turns on the first axis."""
    other = target()
    other.config["rope_parameters"] = {"mrope_section": [2, 3, 3], "rope_theta": 10000.0}
    options = Options(outtype="f32", target=write_checkpoint(tmp_path / "mrope", other))
    out = tmp_path / "x.gguf"
    write(plan_checkpoint(open_checkpoint(folders("authors")[1]), options), out)
    sections = GGUFReader(out).fields["dflash.rope.dimension_sections"].contents()
    assert sections == [WIDTH // 2, 0, 0, 0]


def test_scaled_positions_come_along(folders: Callable[[str], Pair], tmp_path: Path) -> None:
    """llama.cpp's converter drops llama3's, which its graph reads."""
    tiny = BUILDERS["authors"]()
    tiny.config["rope_scaling"] = {"rope_type": "llama3", "factor": 8.0}
    folder, out = write_checkpoint(tmp_path / "x", tiny, tokenizer=False), tmp_path / "x.gguf"
    options = Options(outtype="f32", target=folders("authors")[0])
    write(plan_checkpoint(open_checkpoint(folder), options), out)
    factors = next(t for t in GGUFReader(out).tensors if t.name == "rope_freqs.weight")
    assert factors.data[0] == 1
    assert factors.data.max() == 8


def test_inspect_shows_folder_and_file(
    folders: Callable[[str], Pair], file: Callable[[str], Path]
) -> None:
    lines = [*inspect_lines(folders("two")[1])]
    assert lines[1:4] == [
        f"heads: one model (fused rows, a block at once), 2 layers, width 64, vocabulary {N_VOCAB}",
        "runs in: mtp-chat --heads, beside its target, after mtp-convert convert",
        "convert needs: --target, the folder or GGUF of the model it drafts for",
    ]
    assert "its target's vocabulary" in [*inspect_lines(folders("muse")[1])][1]
    kinds = {"authors": "DFlash", "two": "DFlash 2", "speculators": "DSpark"}
    for layout, kind in kinds.items():
        ids = f", {N_DRAFT} ids" if layout == "speculators" else ""
        assert [*inspect_lines(file(layout))][1:3] == [
            f"heads: one model ({kind}, rows of layers 1, 2, 3, blocks of 5{ids})",
            "runs in: mtp-chat --heads, beside its target",
        ]


def refused(tiny: Tiny, folder: Path, target: Path) -> str:
    write_checkpoint(folder, tiny, tokenizer=False)
    with pytest.raises(MtpError) as caught:
        plan_checkpoint(open_checkpoint(folder), Options(target=target))
    line = str(caught.value)
    assert "\n" not in line
    return line


def _config(layout: str, **more: object) -> Callable[[], Tiny]:
    def build() -> Tiny:
        tiny = BUILDERS[layout]()
        tiny.config.update(more)
        return tiny

    return build


def _own(layout: str, **more: object) -> Callable[[], Tiny]:
    """With other values in its part of the config."""
    own = {**BUILDERS[layout]().config["dflash_config"], **more}
    return _config(layout, dflash_config=own)


def _without(layout: str, name: str) -> Callable[[], Tiny]:
    def build() -> Tiny:
        tiny = BUILDERS[layout]()
        tiny.drop(name)
        return tiny

    return build


def _biased() -> Tiny:
    tiny = BUILDERS["authors"]()
    tiny.vector("layers.0.self_attn.q_proj.bias", EMBD)
    return tiny


REFUSED: dict[str, tuple[Callable[[], Tiny], str]] = {
    "a layer too late": (
        _own("authors", target_layer_ids=[0, 2, 5]),
        "layers to read: expected increasing ones from 1 to 5, found [1, 3, 6]",
    ),
    "layers nobody names": (
        _config("authors", dflash_config={"mask_token_id": MASK}),
        "target_layer_ids is missing",
    ),
    "fewer layers": (
        _own("authors", target_layer_ids=[0, 2]),
        "fc.weight from fc.weight: expected (64, 128) by config.json, found (64, 192)",
    ),
    "layers in words": (
        _own("authors", target_layer_ids="all"),
        "config.json: holds a value of an unexpected kind",
    ),
    "no mask": (_own("authors", mask_token_id=None), "mask_token_id is missing"),
    "a mask beyond the ids": (
        _own("authors", mask_token_id=N_VOCAB),
        f"mask_token_id: {N_VOCAB} is no id of {{target}}",
    ),
    "windows of unnamed layers": (
        _config("two", layer_types=["full_attention"]),
        "layer_types: expected 2 entries",
    ),
    "a bias": (
        _biased,
        "layers.0.self_attn.q_proj.bias: no tensor that DFlash is known to have",
    ),
    "another activation": (
        _config("authors", hidden_act="relu"),
        "hidden_act: relu: llama.cpp computes silu or swish for this family",
    ),
    "groups that do not divide": (
        _own("two", conv_group_size=24),
        "conv_group_size: 24 does not divide the width of 64",
    ),
    "too many candidates": (
        _own("two", selector_top_k=8),
        "selector_top_k: 8: its scores do not fit into rows of 64, for llama.cpp",
    ),
    "no selector": (
        _without("two", "candidate_selector.predecessor"),
        "candidate_selector.predecessor_codebook is missing (DFlash needs it for "
        "selector_predecessor.weight)",
    ),
    "a gated head": (
        _config("deepspec", markov_head_type="gated"),
        "markov_head_type: gated: llama.cpp computes vanilla only",
    ),
    "no Markov head": (
        _without("deepspec", "markov_head.markov_w2"),
        "markov_head.markov_w2.weight is missing (DSpark needs it for markov_w2.weight)",
    ),
    "another rank": (
        _config("deepspec", markov_rank=16),
        "markov_w1.weight from markov_head.markov_w1.weight: expected (320, 16) by config.json, "
        "found (320, 32)",
    ),
    "no map": (
        _without("speculators", "d2t"),
        "d2t is missing: of 320 ids 200 are drafted, and nothing says which",
    ),
    "no output for its ids": (
        _without("speculators", "lm_head."),
        "lm_head.weight is missing (DSpark needs it for output.weight)",
    ),
    "values of their own": (
        _config("gemma4", attention_k_eq_v=False),
        "attention_k_eq_v: llama.cpp takes keys for values",
    ),
    "sliding layers": (
        _config("gemma4", layer_types=["sliding_attention", "full_attention"]),
        "layer_types: llama.cpp knows full attention only, for these drafters",
    ),
    "fewer ids for Gemma 4": (
        _config("gemma4", draft_vocab_size=N_DRAFT),
        "draft_vocab_size: llama.cpp knows the whole vocabulary only, for these drafters",
    ),
    "a soft cap": (
        _config("gemma4", final_logit_softcapping=30.0),
        "final_logit_softcapping: llama.cpp has none for these drafters",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_checkpoint_that_is_wrong(
    case: str, folders: Callable[[str], Pair], tmp_path: Path
) -> None:
    build, line = REFUSED[case]
    given = folders("authors")[0]
    assert refused(build(), tmp_path / "wrong", given).endswith(line.format(target=given))


def test_its_target_must_fit(folders: Callable[[str], Pair], tmp_path: Path) -> None:
    other = target()
    other.config["hidden_size"] = 80
    folder = write_checkpoint(tmp_path / "other", other)
    line = refused(BUILDERS["authors"](), tmp_path / "a", folder)
    assert line.endswith(f"this drafter was made for rows of width 64, {folder} has 80")
    other = target()
    other.config["architectures"] = ["Lfm2ForCausalLM"]
    folder = write_checkpoint(tmp_path / "unknown", other)
    line = refused(BUILDERS["authors"](), tmp_path / "b", folder)
    assert line.endswith("in docs/convert.md; give its GGUF with --target")


def test_a_row_for_the_targets_embedding(folders: Callable[[str], Pair], tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/mask_embedding.pt").touch()
    line = refused(BUILDERS["authors"](), tmp_path / "a", folders("authors")[0])
    assert "mask_embedding.pt: an embedding of its own for masked ids, which is not" in line
