"""What goes in front of a conversation, and how it is sampled, with options and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mtp_cli import models
from mtp_cli.chat.loaded import Options, prepared
from mtp_cli.engine import Sampling, Ways
from tests.chat.scripted import ScriptedEngine, said

NOTHING = Options(
    request=None,
    files=models.ModelFiles(Path("some.gguf"), None),
    system=None,
    max_tokens=None,
    stops=(),
    guards_loops=True,
    sampling={},
    n_ctx=None,
    n_threads=None,
    n_gpu_layers=None,
    cache_types=("f16", "f16"),
    kept_prompt_bytes=0,
    ways=Ways,
    depth=0,
    exact=False,
    json=False,
    raw=False,
    think=(),
    chat_template=None,
    template_vars=(),
    attached=(),
    plain=False,
    shows_drafts=False,
    quiet=False,
)
LIKE_SMOLLM = (  # adds a system turn of its own where there is none, as the built-in model's does
    "{% if messages[0]['role'] != 'system' %}{{ '[system]I am SmolLM.' }}{% endif %}"
    "{% for m in messages %}{{ '[' + m['role'] + ']' + m['content'] }}{% endfor %}"
)
RECOMMENDED = Sampling(temperature=0.8, top_p=0.95, min_p=0.05)


def asked(defaults: models.Defaults, **options: Any) -> tuple[str, Sampling]:
    """The prompt's text and the sampling that an engine is asked "Hi" with."""
    engine = ScriptedEngine(said("Hello"), template=LIKE_SMOLLM)
    chosen = Options(**{**vars(NOTHING), **options})
    session, settings = prepared(engine, RECOMMENDED, defaults, chosen)
    for _ in session.ask("Hi", settings):
        pass
    [prompt], [(sampling, _, _)] = engine.prompts, engine.asked
    return b"".join(map(engine.piece, prompt)).decode(), sampling


def test_the_built_in_model_is_asked_as_the_benchmark_found_best() -> None:
    defaults = models.find().defaults
    prompt, sampling = asked(defaults)
    assert prompt == f"[system]{defaults.system}[user]Hi"
    for name, value in defaults.sampling.items():
        assert getattr(sampling, name) == value


@pytest.mark.parametrize("system", ["Be brief.", ""])
def test_a_system_prompt_of_the_users_goes_before_the_built_in_models(system: str) -> None:
    defaults = models.Defaults(system="Be right.")
    assert asked(defaults, system=system)[0] == f"[system]{system}[user]Hi"
    assert asked(defaults)[0] == "[system]Be right.[user]Hi"


def test_sampling_is_the_users_then_the_models_then_what_its_file_recommends() -> None:
    defaults = models.Defaults(sampling={"temperature": 0.2, "top_p": 0.9})
    sampling = asked(defaults, sampling={"temperature": 1.5})[1]
    assert (sampling.temperature, sampling.top_p, sampling.min_p) == (1.5, 0.9, 0.05)


def test_another_model_is_left_to_its_template_and_its_file() -> None:
    assert asked(models.Defaults()) == ("[system]I am SmolLM.[user]Hi", RECOMMENDED)


def test_raw_text_has_nothing_in_front() -> None:
    assert asked(models.Defaults(system="Be right."), raw=True)[0] == "Hi"
