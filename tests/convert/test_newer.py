"""Newer models of families that were there before: what is theirs alone."""

from __future__ import annotations

from gguf import GGUFReader

from tests.convert.checkpoints_newer import mimo25, qwen38
from tests.convert.conftest import Convert


def test_qwens_head_has_fifteen_tensors(converted: Convert) -> None:
    assert len([name for name in qwen38().tensors if name.startswith("mtp.")]) == 15
    tensors = GGUFReader(converted("qwen38")).tensors
    assert len([t for t in tensors if t.name.startswith("blk.4.")]) == 15
    assert "output.weight" in {t.name for t in tensors}


def test_mimos_pictures_and_sounds_stay_behind(converted: Convert) -> None:
    others = ("visual.", "audio_encoder.", "speech_embeddings.")
    assert len([name for name in mimo25().tensors if name.startswith(others)]) == len(others)
    names = {t.name for t in GGUFReader(converted("mimo25")).tensors}
    assert "blk.0.attn_qkv.weight" in names
    assert not [name for name in names if not name.startswith(("blk.", "output", "token_embd"))]
