"""Special tokens, ends of an answer and templates, from folders that say too much or too little."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader, SpecialVocab

from mtp_cli.engine.backend.binding import lib
from mtp_cli.engine.backend.model import Model
from mtp_convert.checkpoint.card import sampling
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.gguf.plan import Plan
from mtp_convert.gguf.write import write
from mtp_convert.tokenizer.special import KEY_ENDS, KNOWN_ENDS, template_metadata
from tests.convert.checkpoints import qwen3 as tiny
from tests.convert.checkpoints import write_checkpoint

EOT, EOM = "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"
EOS, PAD = "tokenizer.ggml.eos_token_id", "tokenizer.ggml.padding_token_id"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "tiny", tiny())


def edit(file: Path, **changes: Any) -> None:
    data = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(data | changes))


def planned(folder: Path) -> Plan:
    return plan_checkpoint(open_checkpoint(folder), Options(outtype="f32"))


def said(folder: Path) -> dict[str, Any]:
    return {key: pair.value for key, pair in planned(folder).metadata.items()}


def add_tokens(folder: Path, *texts: str) -> list[int]:
    """Further control tokens, behind the others; their ids."""
    data = json.loads((folder / "tokenizer.json").read_text())
    first = max(entry["id"] for entry in data["added_tokens"]) + 1
    for i, text in enumerate(texts, first):
        data["added_tokens"].append({**data["added_tokens"][0], "id": i, "content": text})
    (folder / "tokenizer.json").write_text(json.dumps(data))
    return list(range(first, first + len(texts)))


def test_every_end_arrives(folder: Path, tmp_path: Path) -> None:
    """The tokenizer's own, then generation_config.json's; llama.cpp itself knows three of them."""
    ids = add_tokens(folder, "<|over|>", "<|done|>", "<|more|>")
    edit(folder / "generation_config.json", eos_token_id=[260, *ids])
    edit(folder / "config.json", eos_token_id=7)  # which transformers overrules
    found = said(folder)
    assert list(found[KEY_ENDS]) == [260, *ids]
    assert (found[EOS], found[EOT], found[EOM]) == (260, ids[0], ids[1])
    out = tmp_path / "x.gguf"
    write(planned(folder), out)
    assert GGUFReader(out).fields[KEY_ENDS].contents() == [260, *ids]
    model = Model(out, n_gpu_layers=0, no_alloc=True)
    assert [i for i in [260, *ids, 7] if model.is_eog(i)] == [260, *ids]
    by_llama_cpp = [i for i in [260, *ids, 7] if lib.llama_vocab_is_eog(model.vocab, i)]
    assert by_llama_cpp == [260, *ids[:2]]
    model.close()


def test_one_end_needs_no_list(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=260)
    found = said(folder)
    assert found[EOS] == 260
    assert KEY_ENDS not in found
    assert EOT not in found


def test_ends_of_config_json_where_nothing_else_says(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    edit(folder / "config.json", eos_token_id=[260, 259])
    found = said(folder)
    assert found[EOS] == 260
    assert list(found[KEY_ENDS]) == [260, 259]
    assert EOT not in found  # <|endoftext|>, which llama.cpp knows by its spelling


@pytest.mark.parametrize("named", [True, -1, "260", [None, 1.5], {}, [[260]], None])
def test_ends_of_another_type_are_passed_over(folder: Path, named: Any) -> None:
    edit(folder / "generation_config.json", eos_token_id=named)
    found = said(folder)
    assert found[EOS] == 260
    assert KEY_ENDS not in found


def test_an_end_beyond_the_vocabulary_is_noted(folder: Path) -> None:
    edit(folder / "generation_config.json", eos_token_id=[260, 999])
    plan = planned(folder)
    assert "ends of text [999]: beyond the 320 ids; left out" in plan.notes
    assert KEY_ENDS not in plan.metadata


@pytest.mark.parametrize("text", sorted(KNOWN_ENDS))
def test_llama_cpp_knows_these_by_their_spelling(text: str, folder: Path, tmp_path: Path) -> None:
    (i,) = add_tokens(folder, text) if text not in ("<|endoftext|>", "<|im_end|>") else (259,)
    write(planned(folder), tmp_path / "x.gguf")
    model = Model(tmp_path / "x.gguf", n_gpu_layers=0, no_alloc=True)
    assert model.is_eog(i)
    model.close()


def test_no_padding_is_written_as_minus_one(folder: Path) -> None:
    """Llama 2's config.json."""
    edit(folder / "tokenizer_config.json", pad_token=None)
    edit(folder / "config.json", pad_token_id=-1)
    assert PAD not in said(folder)


def test_a_padding_token_beyond_the_embedding_is_left_out(folder: Path, tmp_path: Path) -> None:
    """Fine-tunes add one and leave the embedding as it was; nothing is ever computed with it."""
    data = json.loads((folder / "tokenizer.json").read_text())
    data["added_tokens"].append({**data["added_tokens"][0], "id": 320, "content": "[PAD]"})
    (folder / "tokenizer.json").write_text(json.dumps(data))
    edit(folder / "tokenizer_config.json", pad_token="[PAD]")
    plan = planned(folder)
    note = "token '[PAD]' is left out: its id 320 is none of the embedding's 320"
    assert plan.notes.count(note) == 1
    assert PAD not in plan.metadata
    assert len(plan.metadata["tokenizer.ggml.tokens"].value) == 320


def test_a_template_in_a_file_of_its_own_needs_no_tokenizer_config(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    assert "tokenizer.chat_template" not in said(folder)
    edit(folder / "chat_template.json", chat_template="{{ json }}")
    assert said(folder)["tokenizer.chat_template"] == "{{ json }}"
    (folder / "chat_template.jinja").write_text("{{ own }}")
    assert said(folder)["tokenizer.chat_template"] == "{{ own }}"


def test_roles_of_special_tokens_map(folder: Path) -> None:
    (folder / "tokenizer_config.json").unlink()
    roles = {"eos_token": {"content": "<|im_end|>"}, "bos_token": "[gMASK]", "pad_token": "none"}
    edit(folder / "special_tokens_map.json", **roles)
    found = said(folder)
    assert (found[EOS], found["tokenizer.ggml.bos_token_id"]) == (260, 261)
    assert PAD not in found


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"do_sample": True, "temperature": 0.6}, {"temp": 0.6}),
        ({"temperature": 0.6, "top_k": 20}, {"temp": 0.6, "top_k": 20}),
        ({"do_sample": False, "temperature": 0.6, "top_k": 20, "top_p": 0.9}, {"temp": 0.0}),
        (
            {"do_sample": False, "repetition_penalty": 1.1},
            {"temp": 0.0, "penalty_repeat": 1.1},
        ),
    ],
)
def test_a_file_that_says_not_to_sample_means_the_likeliest_token(
    given: dict[str, Any], found: dict[str, Any], folder: Path
) -> None:
    """transformers takes none of its other settings up then, but the penalties."""
    edit(folder / "generation_config.json", **given)
    assert sampling(folder, []) == found


def test_a_template_file_goes_before_the_tokenizers_config(folder: Path) -> None:
    """As in transformers, which saves the file alone."""
    edit(folder / "tokenizer_config.json", chat_template="{{ left_behind }}")
    edit(folder / "chat_template.json", chat_template="{{ of_the_processor }}")
    assert said(folder)["tokenizer.chat_template"] == "{{ left_behind }}"
    (folder / "chat_template.jinja").write_text("{{ own }}")
    assert said(folder)["tokenizer.chat_template"] == "{{ own }}"


@pytest.mark.parametrize("has_file", [True, False])
def test_further_templates_lie_in_a_folder(has_file: bool, folder: Path) -> None:
    edit(folder / "tokenizer_config.json", chat_template="{{ configured }}")
    if has_file:
        (folder / "chat_template.jinja").write_text("{{ own }}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "rag.jinja").write_text("{{ rag }}")
    found = said(folder)
    assert found["tokenizer.chat_template"] == ("{{ own }}" if has_file else "{{ configured }}")
    assert found["tokenizer.chat_template.rag"] == "{{ rag }}"
    assert found["tokenizer.chat_templates"] == ["rag"]


def test_named_templates(folder: Path) -> None:
    """Hugging Face's list of them: the default one is the template, the others keep their names."""
    templates = [
        {"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"},
        {"name": "r-a g", "template": "r"}, {"name": 3, "template": "x"}, "nothing",
    ]  # fmt: skip
    edit(folder / "tokenizer_config.json", chat_template=templates)
    found = said(folder)
    assert found["tokenizer.chat_template"] == "d"
    assert found["tokenizer.chat_template.tool_use"] == "t"
    assert found["tokenizer.chat_template.r_a_g"] == "r"
    assert found["tokenizer.chat_templates"] == ["tool_use", "r_a_g"]
    assert template_metadata([]) == {}


def test_the_usual_files_are_read_as_gguf_py_reads_them(folder: Path) -> None:
    wanted, found = SpecialVocab(folder, load_merges=True, n_vocab=320), said(folder)
    names = {"bos": "bos", "eos": "eos", "pad": "padding"}
    assert {names[role]: i for role, i in wanted.special_token_ids.items()} == {
        name: found[f"tokenizer.ggml.{name}_token_id"]
        for name in names.values()
        if f"tokenizer.ggml.{name}_token_id" in found
    }
    assert found["tokenizer.ggml.merges"] == wanted.merges
    assert found["tokenizer.chat_template"] == wanted.chat_template
    assert found["tokenizer.ggml.add_bos_token"] is wanted.add_special_token["bos"] is False
