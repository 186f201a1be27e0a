"""A family is one module: the example of the docs, as a file beside the others, converts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from gguf import GGUFReader

from mtp_convert import families
from mtp_convert.checkpoint.folder import open_checkpoint
from mtp_convert.commands.build import Options, plan_checkpoint
from mtp_convert.commands.detach import plan_strip
from mtp_convert.commands.graft import plan_graft
from mtp_convert.commands.inspect import inspect_lines
from mtp_convert.gguf.write import write
from tests.convert.checkpoints import write_checkpoint
from tests.convert.checkpoints_mtp import glm4moe
from tests.convert.conftest import Convert
from tests.convert.test_families import generate

DOCS = Path(families.__file__).parents[3] / "docs" / "add-a-family.md"
OWN = Path(families.__file__).parent / "glm4_moe.py"


def example() -> str:
    """The family in the docs, which is said to be glm4_moe.py's, with what stands before that."""
    (block,) = re.findall(r"\n\n( {4}GLM4_MOE = Family\((?:\n {4}.*)*)", DOCS.read_text())
    before, _ = OWN.read_text().split("GLM4_MOE = ")
    lines = [line.removeprefix("    ") for line in block.splitlines()]
    return before + "\n".join(lines) + "\n\nFAMILIES = (GLM4_MOE,)\n"


@pytest.fixture
def martian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example under another name, for checkpoints whose tensors have other names."""
    text = example().replace("GLM-4.5", "Martian-1").replace("Glm4MoeForCausalLM", "MartianModel")
    text = text.replace('"model.layers.{i}"', '"deimos.{i}"')
    text = text.replace("    name=", '    renames=(("phobos.", "model.layers."),),\n    name=')
    (tmp_path / "martian.py").write_text(text)
    monkeypatch.setattr(families, "__path__", [*families.__path__, str(tmp_path)])
    families.all_families.cache_clear()
    yield
    families.all_families.cache_clear()


def test_the_docs_show_what_the_module_says() -> None:
    assert len(OWN.read_text().splitlines()) == 70  # as the docs say
    shown, own = (text[text.index("GLM4_MOE = ") :] for text in (example(), OWN.read_text()))
    assert [line.split("#")[0].rstrip() for line in shown.splitlines()] == own.splitlines()


@pytest.mark.usefixtures("martian")
def test_a_module_is_all_that_a_family_needs(converted: Convert, tmp_path: Path) -> None:
    tiny = glm4moe()
    tiny.config["architectures"] = ["MartianModel"]
    for name in list(tiny.tensors):
        layer = name.startswith("model.layers.")
        of_head = name.startswith("model.layers.3.")
        new = name.replace("model.layers.", "deimos." if of_head else "phobos.") if layer else name
        tiny.tensors[new], tiny.formats[new] = tiny.tensors.pop(name), tiny.formats.pop(name)
    folder = write_checkpoint(tmp_path / "olympus", tiny)
    assert "heads: 1 (reused, plain KV)" in "\n".join(inspect_lines(folder))
    options = Options(outtype="q8_0")
    write(plan_checkpoint(open_checkpoint(folder), options), tmp_path / "x.gguf")
    wanted = {t.name: t.data.tobytes() for t in GGUFReader(converted("glm4moe", options)).tensors}
    for path in (tmp_path / "x.gguf", regrafted(tmp_path / "x.gguf", folder)):
        assert {t.name: t.data.tobytes() for t in GGUFReader(path).tensors} == wanted
    assert generate(tmp_path / "x.gguf", 2) == generate(converted("glm4moe", options), 2)


def regrafted(path: Path, folder: Path) -> Path:
    """The file without its heads, and with the checkpoint's again."""
    target, again = path.with_name("target.gguf"), path.with_name("again.gguf")
    write(plan_strip(path), target)
    write(plan_graft(target, folder), again)
    return again
