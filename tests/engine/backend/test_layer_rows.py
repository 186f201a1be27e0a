"""The rows that layers read: the same whichever way they come out, and no logit tells of it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from mtp_cli.engine.backend import layer_rows
from mtp_cli.engine.backend.context import Context
from mtp_cli.engine.backend.layer_rows import HANDED_OUT, LAST_TOO
from mtp_cli.engine.native import compiled
from mtp_cli.engine.types import Floats, HiddenSource
from mtp_cli.errors import MtpError
from tests.engine import tiny
from tests.engine.conftest import Models, Targets

PROMPT = tiny.random_ids(70, seed=51)
# Prompts, drafts and single rows: tokens of a decode, and the first token that gives an output.
DECODES = [(40, 39), (1, 0), (4, 0), (20, 18), (5, 5)]
BOTH_WAYS = ["llama-deep", "mimo2", "qwen35", "qwen3next"]
BY_NAME_ONLY = ["qwen2", "gemma2", "lfm2", "jamba"]


def decoded(
    models: Models, name: str, layers: Sequence[int], n_batch: int = 64
) -> tuple[list[Floats], Floats]:
    """Logits of every decode, and the rows (n, n_layers * n_embd) of all of them; none for ()."""
    context = Context(
        models(name),
        n_ctx=256,
        n_batch=n_batch,
        n_outputs=8,
        n_threads=1,
        hidden=HiddenSource.LAYER if layers else HiddenSource.NONE,
        layers=layers,
        n_rs_seq=1,
    )
    logits, rows, position = [], [], 0
    for n, first_output in DECODES:
        context.decode(PROMPT[position : position + n], position, first_output=first_output)
        logits.append(context.logits().copy() if first_output < n else np.zeros(0, np.float32))
        if layers:
            given = context.hidden()
            assert given is not None
            assert given.shape == (n, len(layers) * tiny.N_EMBD)
            rows.append(given.copy())
        position += n
    context.close()
    return logits, np.concatenate(rows) if rows else np.zeros(0, np.float32)


@pytest.mark.parametrize("name", [*BOTH_WAYS, *BY_NAME_ONLY])
def test_no_bit_of_the_logits_tells_of_it(tiny_model: Models, name: str) -> None:
    plain, asked = decoded(tiny_model, name, ())[0], decoded(tiny_model, name, (1,))[0]
    for without, with_rows in zip(plain, asked, strict=True):
        np.testing.assert_array_equal(without, with_rows)


@pytest.mark.parametrize("is_compiled", [True, False])
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_both_ways_give_the_same(
    tiny_model: Models, name: str, is_compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, handed_out = decoded(tiny_model, name, ())[0], decoded(tiny_model, name, (1,))[1]
    monkeypatch.setattr(layer_rows, "HANDED_OUT", frozenset[str]())
    if not is_compiled:
        monkeypatch.setattr(compiled, "load", lambda: None)
    logits, rows = decoded(tiny_model, name, (1,))
    np.testing.assert_array_equal(rows, handed_out)
    for without, with_rows in zip(plain, logits, strict=True):
        np.testing.assert_array_equal(without, with_rows)


@pytest.mark.parametrize("name", ["llama-deep", "qwen2"])
def test_several_layers_stand_side_by_side(tiny_model: Models, name: str) -> None:
    several = decoded(tiny_model, name, (1, 2))[1]
    each = [decoded(tiny_model, name, (layer,))[1] for layer in (1, 2)]
    np.testing.assert_array_equal(several, np.concatenate(each, axis=1))
    assert np.abs(each[0] - each[1]).max() > 0.1


def test_the_row_after_the_last_layer_is_the_one_before_the_final_norm(tiny_model: Models) -> None:
    model, tokens = tiny_model("mimo2"), PROMPT[:20]
    rows = []
    for hidden, layers in ((HiddenSource.NEXTN, ()), (HiddenSource.LAYER, (1, 2))):
        context = Context(
            model, n_ctx=256, n_batch=64, n_outputs=20, n_threads=1, hidden=hidden, layers=layers
        )
        context.decode(tokens, 0)
        given = context.hidden()
        assert given is not None
        rows.append(given[:, -tiny.N_EMBD :].copy())
        context.close()
    np.testing.assert_array_equal(rows[0], rows[1])


@pytest.mark.parametrize("name", ["llama-deep", "qwen2"])
def test_final_rows_come_behind_those_of_layers(tiny_model: Models, name: str) -> None:
    """The same as of contexts that give one of them, and zeros where there are no outputs."""
    model = tiny_model(name)
    sources = HiddenSource.EMBD, HiddenSource.LAYER, HiddenSource.LAYER_AND_EMBD
    final, layers, both = (
        Context(
            model,
            n_ctx=256,
            n_batch=64,
            n_outputs=8,
            n_threads=1,
            hidden=hidden,
            layers=() if hidden is HiddenSource.EMBD else (1, 2),
        )
        for hidden in sources
    )
    position = 0
    for n, has_outputs in ((40, False), (1, True), (4, True), (20, False), (3, True)):
        for context in (final, layers, both):
            first_output = 0 if has_outputs else n
            context.decode(PROMPT[position : position + n], position, first_output=first_output)
        of_layers, found = layers.hidden(), both.hidden()
        assert of_layers is not None
        assert found is not None
        wanted = final.hidden() if has_outputs else np.zeros((n, tiny.N_EMBD))
        assert wanted is not None
        np.testing.assert_array_equal(found, np.concatenate((of_layers, wanted), axis=1))
        if has_outputs:
            np.testing.assert_array_equal(both.logits(), layers.logits())
        position += n
    for context in (final, layers, both):
        context.close()


def test_a_prompts_window_spans_its_pieces(new_target: Targets) -> None:
    """512 tokens at once: the rows of 600 come from two decodes."""
    prompt = tiny.random_ids(700, seed=52)
    target = new_target("qwen2", n_ctx=1024, hidden=HiddenSource.LAYER, layers=(1, 2))
    whole = target.prefill(prompt, 600, lambda: False)
    assert whole is not None
    assert whole.hidden is not None
    assert whole.hidden.shape == (600, 2 * tiny.N_EMBD)
    again = new_target("qwen2", n_ctx=1024, hidden=HiddenSource.LAYER, layers=(1, 2))
    again.prefill(prompt[:150], 1, lambda: False)
    rest = again.prefill(prompt[150:], 600, lambda: False)
    assert rest is not None
    assert rest.hidden is not None
    np.testing.assert_allclose(whole.hidden[50:], rest.hidden, atol=0.01)


def test_rows_that_no_tensor_is_named_for(new_target: Targets) -> None:
    target = new_target("qwen2", hidden=HiddenSource.LAYER, layers=(5,))
    with pytest.raises(MtpError, match="gives heads no rows of this architecture's layers"):
        target.check_rows()


def test_rows_that_are_there_pass_the_check(new_target: Targets) -> None:
    for name in ("llama", "qwen2"):
        target = new_target(name, hidden=HiddenSource.LAYER, layers=(1,))
        target.check_rows()
        assert target.ids == []


def test_the_table_is_what_the_pinned_source_says() -> None:
    """The graphs of these set the rows of every layer; those of other shapes are left out."""
    tree = os.environ.get("MTP_LLAMA_CPP")
    if not tree:
        pytest.skip("MTP_LLAMA_CPP names no source tree")
    source = Path(tree) / "src"
    names = dict(
        re.findall(r'\{\s*(LLM_ARCH_\w+),\s*"([^"]+)"', (source / "llama-arch.cpp").read_text())
    )
    classes = re.findall(
        r"case (LLM_ARCH_\w+):\s*return new (llama_model_\w+)\(",
        (source / "llama-model.cpp").read_text(),
    )
    parents = dict(
        re.findall(
            r"struct (llama_model_\w+) : public (llama_model_\w+)",
            (source / "models" / "models.h").read_text(),
        )
    )
    graphs = {
        found[1]: text
        for text in (path.read_text() for path in (source / "models").glob("*.cpp"))
        if (found := re.search(r"(llama_model_\w+)::build_arch_graph", text))
    }
    sets = "res->t_layer_inp[il] = inpL;"
    setting = {
        names[arch]
        for arch, of in classes
        if any(sets in graphs.get(name, "") for name in (of, parents.get(of, "")))
    }
    assert len(names) > 100
    assert setting >= HANDED_OUT
    last = "res->t_layer_inp[n_layer] = cur;"
    setting_last = {
        names[arch]
        for arch, of in classes
        if any(last in graphs.get(name, "") for name in (of, parents.get(of, "")))
    }
    assert setting_last == LAST_TOO
    others = {"bailingmoe3", "hunyuan-dense", "hunyuan_vl", "llama-embed"}
    others |= {"minimax-01", "muse-glimmer", "nanbeige"}
    assert setting - HANDED_OUT <= others
