"""Against llama.cpp's own converter and transformers' forward; opt-in (docs/add-a-family.md).

Needs PyTorch, transformers 5.23 and the source tree of llama.cpp that the llama-cpp-python sdist
carries, named by MTP_LLAMA_CPP. None of them is a dependency of the project.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader

from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.model import Model
from mtp_cli.engine.drafters.shared_kv import SharedKvDrafter
from mtp_cli.engine.sampling.proposals import Proposal, likeliest
from mtp_cli.engine.types import Floats, HiddenSource, Ids
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, Part, plan_checkpoint
from mtp_convert.gguf.write import write
from tests.convert import checkpoints_mtp, checkpoints_newer
from tests.convert.checkpoints import Tiny, write_checkpoint
from tests.convert.conftest import ALL, APART, ASSISTANTS, FAMILIES, WITH_HEADS, Convert
from tests.convert.expectation import dequantized
from tests.convert.native import target_rows
from tests.convert.test_families import PROMPT

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("default")]
SCRIPT = Path(__file__).with_name("llama_cpp_converter.py")

# transformers renames keys of these configs, and llama.cpp's converter then misses them.
RAW = ("mimo2", "mimo25", "step35", "step37", "ling3", "north")
# What ours has and llama.cpp's lacks, and the reverse.
FUSED = {f"blk.{i}.attn_qkv.weight" for i in (3, 4, 5)}
# It takes this head's router for another layer's and quantizes it; ours stays in float32.
ROUTER = ("nemotron_h_moe", "blk.4.ffn_gate_inp.weight")
SEPARATE = {f"blk.{i}.attn_{part}.weight" for i in (3, 4, 5) for part in "qkv"}

# Keys that llama.cpp's converter leaves out; its runtime then guesses by size.
ADDED: dict[str, tuple[str, float]] = {
    "glm4moelite": ("deepseek2.expert_gating_func", 2),
}

# Keys that it takes from elsewhere (`mimo2.py` says why): (theirs, ours).
OTHERS: dict[str, tuple[str, int, int]] = {
    "mimo2": ("mimo2.attention.sliding_window", 16, 17),
    "mimo25": ("mimo2.attention.sliding_window", 16, 17),
}

# Keys that ours leaves out (`glm4v_moe.py` says why).
LEFT_OUT = {"glm4v": "glm4moe.rope.dimension_sections"}

OUTTYPES = ("f32", "f16", "bf16", "q8_0")
Reference = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def reference(
    checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Reference:
    """llama.cpp's own file of a family; all outtypes in one run, most of which is imports."""
    tree = os.environ.get("MTP_LLAMA_CPP")
    assert tree, "MTP_LLAMA_CPP must name llama.cpp's source tree"
    root = tmp_path_factory.mktemp("llama.cpp")

    def convert(family: str, outtype: str) -> Path:
        pre = "glm4" if family.startswith("glm") else "qwen2"
        how = "raw" if family in RAW else "transformers"
        if not list(root.glob(f"{family}-*")):
            command = [sys.executable, str(SCRIPT), tree, pre, how, str(checkpoint(family))]
            command += [str(root / f"{family}-{{}}.gguf"), *OUTTYPES]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[-2000:]
        return root / f"{family}-{outtype}.gguf"

    return convert


# llama.cpp's converter takes DeepSeek-V4's experts packed in four bits only.
COMPARED = [name for name in ALL if name != "deepseek4"]


@pytest.mark.parametrize("outtype", OUTTYPES)
@pytest.mark.parametrize("family", COMPARED)
def test_same_file_as_llama_cpps_converter(
    family: str,
    outtype: str,
    checkpoint: Callable[[str], Path],
    reference: Reference,
    tmp_path: Path,
) -> None:
    folder, out = checkpoint(family), tmp_path / "ours.gguf"
    pre = "glm4" if family.startswith("glm") else "qwen2"
    # Its deepseek2 drops the heads, so only the targets can be compared.
    part: Part = "target" if family == "deepseek3" else "all"
    write(plan_checkpoint(open_checkpoint(folder), Options(part, outtype, pre=pre)), out)
    theirs = reference(family, outtype)
    compare_tensors(GGUFReader(out), GGUFReader(theirs))
    ours, wanted = metadata(out), metadata(theirs)
    if family in ADDED:
        key, value = ADDED[family]
        assert key not in wanted
        assert ours.pop(key)[1] == value
    if family in OTHERS:
        key, *values = OTHERS[family]
        assert [wanted.pop(key)[1], ours.pop(key)[1]] == values
    if family in LEFT_OUT:
        assert LEFT_OUT[family] not in ours
        del wanted[LEFT_OUT[family]]
    assert ours == wanted


def compare_tensors(ours: GGUFReader, theirs: GGUFReader) -> None:
    found = {t.name: t for t in ours.tensors}
    wanted = {t.name: t for t in theirs.tensors}
    assert found.keys() - wanted.keys() in (set(), FUSED)
    assert wanted.keys() - found.keys() in (set(), SEPARATE)
    for name in found.keys() & wanted.keys():
        a, b = found[name], wanted[name]
        if (ours.fields["general.architecture"].contents(), name) == ROUTER:
            assert a.tensor_type == GGMLQuantizationType.F32
            continue
        assert (a.tensor_type, list(a.shape)) == (b.tensor_type, list(b.shape)), name
        if name.endswith("ssm_a"):  # exp of numpy and of PyTorch differ in the last bit
            np.testing.assert_allclose(a.data, b.data, rtol=3e-7)
        else:
            assert a.data.tobytes() == b.data.tobytes(), name


def metadata(path: Path) -> dict[str, Any]:
    fields = GGUFReader(path).fields
    return {
        key: (field.types, field.contents())
        for key, field in fields.items()
        if not key.startswith("GGUF.")
    }


@pytest.mark.parametrize("family", WITH_HEADS)
def test_same_target_as_llama_cpps_converter_without_heads(
    family: str, converted: Convert, reference: Reference
) -> None:
    ours = converted(family, Options("target", outtype="f32"))
    theirs = reference(family, "f32")
    wanted = {t.name: t.data.tobytes() for t in GGUFReader(theirs).tensors}
    for tensor in GGUFReader(ours).tensors:
        same = wanted[tensor.name] == tensor.data.tobytes()
        assert same or tensor.name.endswith("ssm_a"), tensor.name


# Limits of Ling's activations, which transformers' class passes over.
UNREAD = ("expert_swiglu_limit_list", "share_expert_swiglu_limit_list")


def without_fp8(tiny: Tiny) -> Tiny:
    """The same weights in float32: transformers runs FP8 on GPUs only."""
    left_out = ("quantization_config", *UNREAD)
    config = {k: v for k, v in tiny.config.items() if k not in left_out}
    plain = Tiny(config, byte_fallback=tiny.byte_fallback)
    for name, values in dequantized(tiny).items():
        is_whole = tiny.formats[name] == "I64"
        plain.put(name, tiny.tensors[name] if is_whole else values, "I64" if is_whole else "F32")
    return plain


# transformers has no class for MiMo-V2 and Step-3.5 that reads these files, and for the others none
# without a vision tower.
NO_FORWARD = ("qwen35_vision", "qwen38", "mimo2", "mimo25", "step35", "step37", "glm4v")
FORWARD = [name for name in FAMILIES if name not in NO_FORWARD]


@pytest.mark.parametrize("family", FORWARD)
def test_same_logits_as_transformers(family: str, tmp_path: Path) -> None:
    tiny = without_fp8(FAMILIES[family][0]())
    if "index_topk" in tiny.config:
        # All keys: of those that score exactly zero, torch and ggml drop different ones, and two
        # scoring heads leave many at zero. The next test drops some, without such ties.
        tiny.config["index_topk"] = 64
    compare_logits(tiny, tmp_path, nextn=bool(FAMILIES[family][2]) or family in APART)


def test_sparse_attention_drops_the_keys_that_transformers_drops(tmp_path: Path) -> None:
    """DeepSeek-V3.2's, for the last two of 18 rows: 16 scoring heads leave no key at zero."""
    tiny = without_fp8(checkpoints_mtp.deepseek32(n_index=16))
    assert tiny.config["index_topk"] == len(PROMPT) - 2
    compare_logits(tiny, tmp_path / "some", nextn=True)


def test_a_gemma_4_without_a_soft_cap(tmp_path: Path) -> None:
    tiny = without_fp8(FAMILIES["gemma4_moe"][0]())
    tiny.config["final_logit_softcapping"] = None
    compare_logits(tiny, tmp_path, nextn=False)


def test_three_value_heads_for_each_key_head(tmp_path: Path) -> None:
    compare_logits(without_fp8(checkpoints_newer.qwen38(tower=False)), tmp_path, nextn=True)


@pytest.mark.parametrize("function", ["sigmoid", "softmax"])
def test_north_with_shared_experts(function: str, tmp_path: Path) -> None:
    tiny = without_fp8(checkpoints_newer.north_shared())
    tiny.config |= {"expert_selection_fn": function, "norm_topk_prob": True}
    compare_logits(tiny, tmp_path, nextn=True)


def compare_logits(tiny: Tiny, tmp_path: Path, nextn: bool) -> None:
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    folder = write_checkpoint(tmp_path / "x", tiny)
    out = tmp_path / "x.gguf"
    write(plan_checkpoint(open_checkpoint(folder), Options(outtype="f32")), out)
    found, _ = target_rows(out, PROMPT, nextn=nextn)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        wanted = model(torch.tensor([PROMPT])).logits[0].numpy()
    assert np.ptp(wanted) > 5
    assert np.abs(found - wanted).max() < 0.03


# Shorter than the sliding window of 16, one past it, and far past it.
@pytest.mark.parametrize("n_prompt", [9, 17, 48])
@pytest.mark.parametrize("family", ASSISTANTS)
def test_an_assistant_drafts_the_same_ids_as_transformers(
    family: str,
    n_prompt: int,
    checkpoint: Callable[[str], Path],
    converted: Convert,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own generator of candidates, on the target's own outputs: eight ids, and their logits."""
    config: Any = importlib.import_module("transformers").Gemma4TextConfig
    monkeypatch.setattr(config, "kv_sharing_modes", property(kv_sharing_modes))
    target, assistant = family, ASSISTANTS[family]
    prompt = (PROMPT * 3)[2 : 2 + n_prompt]  # where no id is a near-tie
    newest, wanted = transformers_draft(checkpoint(target), checkpoint(assistant), prompt, 8)
    found = llama_cpp_draft(converted(target), converted(assistant), prompt, newest, 8)
    error = np.abs(found - wanted).max()
    best = np.sort(wanted, axis=1)
    assert (best[:, -1] - best[:, -2]).min() > 2 * error
    assert found.argmax(axis=1).tolist() == wanted.argmax(axis=1).tolist()
    assert error < 0.03
    assert np.ptp(wanted) > 5


def kv_sharing_modes(config: Any) -> list[str | None]:
    """Which layers compute, keep or read keys and values.

    As 5.23.0 says of its own, whose code refuses an assistant (no layer computes any) and keeps
    nothing for it in a target whose layers share none.
    """
    kinds = config.layer_types
    n_own = len(kinds) - config.num_kv_shared_layers
    modes = [None if i < n_own else "reuse" for i in range(len(kinds))]
    for kind in set(kinds[:n_own]):
        modes[max(i for i in range(n_own) if kinds[i] == kind)] = "store"
    return modes


def transformers_draft(
    model: Path, assistant: Path, prompt: list[int], n: int
) -> tuple[int, Floats]:
    """The token after the prompt, and the logits (n, n_vocab) of n drafts after it."""
    torch: Any = importlib.import_module("torch")
    transformers: Any = importlib.import_module("transformers")
    generation: Any = importlib.import_module("transformers.generation.candidate_generator")
    target = transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    small = transformers.AutoModelForCausalLM.from_pretrained(assistant, dtype=torch.float32)
    small.generation_config.num_assistant_tokens = n
    # Written for distances up to the window itself, counted from the row before the newest: two
    # keys more than the target's layer has in a window, and than llama.cpp shows an assistant.
    small.config.get_text_config().sliding_window -= 2
    settings = transformers.GenerationConfig(max_length=len(prompt) + n + 2)
    generator = generation.SinglePositionMultiTokenCandidateGenerator(
        small, target.get_input_embeddings(), settings
    )
    with torch.no_grad():
        out = target(
            torch.tensor([prompt]), output_hidden_states=True, return_shared_kv_states=True
        )
        newest = int(out.logits[0, -1].argmax())
        ids, logits = generator.get_candidates(
            torch.tensor([[*prompt, newest]]),
            {"attention_mask": torch.ones(1, len(prompt) + 1, dtype=torch.long)},
            out,
            is_first_iteration=False,
            n_last_matches=0,
        )
    drafts = logits[0].numpy()
    assert ids[0, -n:].tolist() == drafts.argmax(axis=1).tolist()
    return newest, drafts


def llama_cpp_draft(model: Path, assistant: Path, prompt: list[int], newest: int, n: int) -> Floats:
    """The logits (n, n_vocab) of n drafts after `newest`."""
    models = Model(model, n_gpu_layers=0), Model(assistant, n_gpu_layers=0)
    sizes: dict[str, Any] = {"n_ctx": 64, "n_threads": 1, "hidden": HiddenSource.NEXTN}
    target = Context(models[0], n_batch=64, n_outputs=1, **sizes)
    sharing: dict[str, Any] = {"mtp": True, "shares": target, "owns_model": True}
    shared = Context(models[1], n_batch=1, n_outputs=1, **sharing, **sizes)
    drafter = SharedKvDrafter(shared)
    target.decode(prompt, 0, first_output=len(prompt) - 1)
    row = target.hidden()
    assert row is not None
    drafter.observe(prompt[-1:], len(prompt) - 1, row)
    seen: list[Floats] = []

    def propose(
        logits: Floats, ids: Ids | None, drafted: Sequence[int], prob: float | None = None
    ) -> Proposal:
        seen.append(logits.copy())
        return likeliest(logits, ids)

    drafter.draft(newest, n, propose=propose)
    drafter.close()
    target.close()
    models[0].close()
    return np.stack(seen)
