"""From what the user gives to a file, over stores laid out as the tools lay them out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mtp_cli.errors import MtpError
from mtp_cli.library.names import locate
from mtp_cli.library.stores import BUILT_IN, Stored, stored
from tests.library import laid_out

REPOSITORY, FILE = "you/Big-Instruct-GGUF", "Big-Instruct-Q4_K_M.gguf"


def theirs() -> list[Stored]:
    """What tools keep here, without the model that is built in."""
    return [model for model in stored() if model.store != BUILT_IN]


def refusal(name: str) -> str:
    with pytest.raises(MtpError) as caught:
        locate(Path(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name",
    [
        "you/Big-Instruct-GGUF:Q4_K_M",
        "you/Big-Instruct-GGUF",
        "Big-Instruct-GGUF:q4_k_m",
        "big-instruct:Q4_K_M",
        "big-instruct",
        "Big-Instruct-Q4_K_M",
        "Big-Instruct-Q4_K_M.gguf",
    ],
)
@pytest.mark.parametrize(
    "store", [laid_out.hugging_face, laid_out.llama_cpp_flat, laid_out.lm_studio]
)
def test_a_repositorys_model_is_found_by_any_of_its_names(
    home: Path, store: object, name: str
) -> None:
    assert callable(store)
    path = store(home, REPOSITORY, FILE)
    assert locate(Path(name)) == path


def test_ollamas_names_lead_to_its_blobs(home: Path) -> None:
    blob = laid_out.ollama(home, "llama3.2")
    for name in ("llama3.2", "llama3.2:latest", "library/llama3.2", "Llama3.2"):
        assert locate(Path(name)) == blob
    small = laid_out.ollama(home, "llama3.2", "1b")
    mine = laid_out.ollama(home, "mine", whose="registry.ollama.ai/me")
    hub = laid_out.ollama(home, "Big-GGUF", "Q8_0", whose="hf.co/you")
    new = laid_out.ollama(home, "new", whose="ollama.com/library", manifests="manifests-v2")
    for name, path in (
        ("llama3.2:1b", small),
        ("me/mine", mine),
        ("hf.co/you/Big-GGUF:Q8_0", hub),
        ("new", new),
    ):
        assert locate(Path(name)) == path


def test_what_is_no_manifest_or_has_no_blob_is_no_model(home: Path) -> None:
    laid_out.ollama(home, "gone").unlink()
    for number, content in enumerate([b"", b"[]", b'{"layers": 3}', b'{"layers": [{}]}', b"\xff"]):
        laid_out.ollama(home, f"broken{number}")
        manifests = home / ".ollama/models/manifests/registry.ollama.ai/library"
        (manifests / f"broken{number}/latest").write_bytes(content)
    assert theirs() == []


def test_the_tools_own_settings_say_where_their_folders_are(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = laid_out.lm_studio(home, REPOSITORY, FILE, folder="elsewhere")
    assert locate(Path("big-instruct")) == chosen
    moved = home / "moved"
    (moved / "models/you/Other").mkdir(parents=True)
    (moved / "models/you/Other/other-Q8_0.gguf").write_bytes(b"GGUF")
    (home / ".lmstudio-home-pointer").write_text(f"{moved}\n")
    assert locate(Path("other")) == moved / "models/you/Other/other-Q8_0.gguf"
    monkeypatch.setenv("LLAMA_CACHE", str(home / "llama"))
    new = laid_out.hub_form(home / "llama", "them/New-GGUF", "New-Q4_0.gguf")
    assert locate(Path("new")) == new
    for variable, below in (
        ("HF_HUB_CACHE", ""),
        ("HF_HOME", "hub"),
        ("XDG_CACHE_HOME", "huggingface/hub"),
    ):
        path = laid_out.hub_form(home / variable / below, f"x/{variable}", "x-Q8_0.gguf")
        monkeypatch.setenv(variable, str(home / variable))
        assert locate(Path(variable)) == path
        monkeypatch.delenv(variable)


def test_folders_of_the_users_own(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("one/a.gguf", "two/deep/b-00001-of-00002.gguf", "two/deep/b-00002-of-00002.gguf"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"GGUF")
    monkeypatch.setenv("MTP_MODELS", os.pathsep.join(["~/one", str(home / "two"), "/no/such"]))
    assert locate(Path("a")) == home / "one/a.gguf"
    assert locate(Path("b")) == home / "two/deep/b-00001-of-00002.gguf"
    assert [(model.name, model.missing) for model in theirs()] == [("a", []), ("b", [])]
    (home / "two/deep/b-00002-of-00002.gguf").unlink()
    assert theirs()[1].missing == ["b-00002-of-00002.gguf"]


def test_a_repository_has_the_files_of_its_newest_version_first(home: Path) -> None:
    old = laid_out.hugging_face(home, REPOSITORY, FILE, b"GGUF old", commit="01d")
    other = laid_out.hugging_face(home, REPOSITORY, "Big-Instruct-Q8_0.gguf", commit="01d")
    new = laid_out.hugging_face(home, REPOSITORY, FILE, b"GGUF new", commit="4e3")
    assert locate(Path("big-instruct:Q4_K_M")) == new
    assert locate(Path("big-instruct:Q8_0")) == other
    new.resolve().unlink()
    assert locate(Path("big-instruct:Q4_K_M")) == old


def test_what_goes_beside_a_model_is_none(home: Path) -> None:
    for name in ("mmproj-F16.gguf", "mtp-Big-Q8_0.gguf", "Big-mtp.gguf", "imatrix.gguf"):
        laid_out.hugging_face(home, REPOSITORY, name)
    assert theirs() == []


def test_a_path_goes_before_a_name_and_an_alias_before_both(home: Path) -> None:
    path = laid_out.hugging_face(home, REPOSITORY, FILE)
    Path("big-instruct").write_bytes(b"GGUF")
    assert locate(Path("big-instruct")) == Path("big-instruct")
    assert locate(Path("fast"), {"fast": "Big-Instruct-Q4_K_M"}) == path
    assert locate(Path("big-instruct"), {"big-instruct": str(path)}) == path
    assert locate(Path("~/here/big-instruct")) == home / "here/big-instruct"


def test_two_copies_of_a_model_are_one(home: Path) -> None:
    path = laid_out.hugging_face(home, REPOSITORY, FILE)
    laid_out.lm_studio(home, REPOSITORY, FILE)
    assert locate(Path("big-instruct")) == path


def test_a_name_of_several_is_said_with_all(home: Path) -> None:
    for quant in ("Q4_K_M", "Q8_0"):
        laid_out.hugging_face(home, REPOSITORY, f"Big-Instruct-{quant}.gguf")
    line = refusal("big-instruct")
    assert line.startswith("big-instruct: several models are called that; give one of ")
    assert line.endswith(f"{REPOSITORY}:Q4_K_M, {REPOSITORY}:Q8_0")
    other = laid_out.lm_studio(home, REPOSITORY, "Big-Instruct-Q8_0.gguf", b"GGUF and more")
    assert str(other) in refusal("big-instruct:Q8_0")


@pytest.mark.parametrize("name", ["big", "bgi-instruct", "BIG_INSTRUCT:Q4KM", "instruct"])
def test_an_unknown_name_is_said_with_the_nearest(home: Path, name: str) -> None:
    laid_out.hugging_face(home, REPOSITORY, FILE)
    line = refusal(name)
    assert f"{REPOSITORY}:Q4_K_M" in line.partition("did you mean ")[2]


def test_a_repository_that_is_not_here_is_not_downloaded_but_named(home: Path) -> None:
    laid_out.hugging_face(home, REPOSITORY, FILE)
    assert refusal("them/Big-Instruct-GGUF").endswith(
        "; hf:them/Big-Instruct-GGUF would be downloaded"
    )
    assert locate(Path("us/entirely-different")) == Path("us/entirely-different")


def test_what_is_nobodys_is_left_to_be_refused_as_a_path(home: Path) -> None:
    laid_out.hugging_face(home, REPOSITORY, FILE)
    for name in ("/no/such", "../big-instruct", "nosuch.gguf", "https://example.com/x.gguf"):
        assert locate(Path(name)) == Path(name)
    assert "no such user" in refusal("~no-such-user/x.gguf")
    assert "File name too long" in refusal("a" * 5000)


def test_stores_of_others_and_broken_settings_do_no_harm(home: Path) -> None:
    (home / ".lmstudio").mkdir()
    for content in ("", "[]", '{"downloadsFolder": 3}', "x" * (1 << 21)):
        (home / ".lmstudio/settings.json").write_text(content)
        assert theirs() == []
    (home / ".lmstudio/settings.json").write_text(json.dumps({"downloadsFolder": "/root/no"}))
    assert theirs() == []
