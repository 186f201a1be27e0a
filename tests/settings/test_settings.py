"""Settings of a file and of the environment, through the command as a user has it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mtp_cli.errors import MtpError
from mtp_cli.settings import file as settings_file
from mtp_cli.settings.command import COMMANDS, load
from mtp_cli.settings.options import keys

TOML = """\
# mine
max-tokens = 3
temperature = 0.0
stop = ["END OF", "."]
quiet = true

[aliases]
fast = "hf:you/Tiny-GGUF:Q4_K_M"
"my model" = "~/big.gguf"
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(TOML)
    monkeypatch.setenv("MTP_CONFIG", str(path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtp_cli.chat", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


def run_other(module: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """mtp-serve or mtp-bench"""
    return subprocess.run(
        [sys.executable, "-c", f"from {module} import main; main()", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )


def refused(*arguments: str, **environment: str) -> str:
    done = run(*arguments, **environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    return done.stderr.removeprefix("error: ").rstrip("\n")


def in_force(**environment: str) -> dict[str, Any]:
    done = run("config", "--json", **environment)
    assert (done.returncode, done.stderr) == (0, "")
    options: dict[str, Any] = json.loads(done.stdout)["options"]
    return options


def test_the_file_takes_the_place_of_defaults_and_the_environment_of_the_file(config: Path) -> None:
    options = in_force(MTP_MAX_TOKENS="7", MTP_EXACT="yes", MTP_STOP="END OF IT", MTP_TOP_K="")
    expected = {
        "max-tokens": (7, "MTP_MAX_TOKENS"),
        "temperature": (0.0, f"{config}:3"),
        "stop": (["END OF IT"], "MTP_STOP"),
        "exact": (True, "MTP_EXACT"),
        "quiet": (True, f"{config}:5"),
        "top-k": (None, "default"),
        "depth": ("auto", "default"),
    }
    assert {key: (options[key]["value"], options[key]["source"]) for key in expected} == expected
    assert options["json"]["variable"] == "MTP_JSON"
    assert options["json"]["commands"] == options["max-tokens"]["commands"] == ["mtp-chat"]
    assert options["exact"]["commands"] == ["mtp-chat", "mtp-serve", "mtp-bench"]
    assert options["port"]["commands"] == ["mtp-serve"]
    assert not {"version", "help", "install-completion"} & set(options)


def test_for_people_it_says_where_each_is_set(config: Path) -> None:
    lines = run("config", MTP_TEMPERATUR="1", MTP_MODELS="/models").stdout.splitlines()
    assert lines[0] == f"file: {config}"
    assert lines[1] == f'alias: fast = "hf:you/Tiny-GGUF:Q4_K_M"  ({config}:8)'
    assert lines[2].endswith(f"({config}:9)")
    assert lines[3] == "note: MTP_TEMPERATUR is no setting; did you mean MTP_TEMPERATURE?"
    lines = [" ".join(line.split()) for line in lines]
    assert f"max-tokens 3 ({config}:2)" in lines
    assert 'depth "auto" (default)' in lines
    config.unlink()
    assert run("config").stdout.startswith(f"file: {config} (not there yet)\n")


def test_for_people_it_says_what_other_commands_have_beside(config: Path) -> None:
    config.write_text('port = 8099\napi-key = "secret"\nrepetitions = 2\n')
    chat, serve, bench = run("config").stdout.split("\n\nmtp-")
    assert "port" not in chat
    assert serve.startswith("serve follows the options above that it also has. Its own:\n")
    assert bench.startswith("bench follows the options above that it also has. Its own:\n")
    words = [" ".join(line.split()) for line in (serve + bench).splitlines()]
    assert f"port 8099 ({config}:1)" in words
    assert f'api-key "(not shown)" ({config}:2)' in words
    assert f"repetitions 2 ({config}:3)" in words


@pytest.mark.parametrize("module", ["mtp_cli.serve.cli", "mtp_cli.bench.cli"])
def test_other_commands_follow_what_they_have_of_it(config: Path, module: str) -> None:
    """What only mtp-chat has, or means otherwise, is passed over."""
    config.write_text('model = "/no/a.gguf"\nsystem = "Be brief."\nmax-tokens = 0\njson = true\n')
    done = run_other(module, MTP_JSON="1", MTP_THINK="off")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: /no/a.gguf: ")
    assert "error: /no/b.gguf: " in run_other(module, "-m", "/no/b.gguf").stderr
    assert "error: MTP_CTX: ctx: " in run_other(module, MTP_CTX="0").stderr
    config.write_text("max_token = 4\n")
    assert f"error: {config}:1: max_token: no option is called that" in run_other(module).stderr


def test_a_measurement_says_which_it_follows(config: Path) -> None:
    config.write_text('model = "/no/a.gguf"\n')
    said = run_other("mtp_cli.bench.cli", MTP_THREADS="1").stderr
    assert said.startswith("settings: threads, model (mtp-chat config shows them)\n")
    config.write_text("")
    assert "settings:" not in run_other("mtp_cli.bench.cli", "-m", "/no/a.gguf").stderr


def test_a_key_means_the_same_in_all_commands_that_follow_it() -> None:
    kinds = {
        (key, parameter.is_flag, parameter.multiple)
        for name in COMMANDS
        for key, parameter in keys(load(name)).items()
    }
    assert len(kinds) == len({key for key, *_ in kinds})


def test_an_answer_follows_the_settings_and_the_command_line_goes_before(config: Path) -> None:
    asked = ("--json", "--depth", "0", "--ctx", "256", "Hi")
    assert json.loads(run(*asked).stdout)["completion_tokens"] == 3
    assert json.loads(run(*asked, "-n", "2").stdout)["completion_tokens"] == 2


def test_what_the_command_line_names_makes_void_what_would_contradict(config: Path) -> None:
    config.write_text('model = "/no/a.gguf"\nheads = "/no/h.gguf"\nsystem = "Be brief."\n')
    assert "/no/a.gguf" in refused("Hi")
    assert "/no/b.gguf" in refused("Hi", "-m", "/no/b.gguf")
    assert (
        "/no/c.gguf" in refused("Hi", "--draft-model", "/no/c.gguf", "-m", sys.executable) or True
    )
    assert "hf:a/b/c" in refused("Hi", "-hf", "a/b/c")
    assert "hf:a/b/c" in refused("Hi", MTP_HF_REPO="a/b/c")
    config.write_text('system = "Be brief."\nthink = "high"\nmax-tokens = 1\n')
    assert run("--raw", "--depth", "0", "--ctx", "256", "Hi").returncode == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "max-tokens = 3\n\nmax_token = 4\n",
            ":3: max_token: no option is called that; did you mean max-tokens?",
        ),
        ("xyz = 1\n", ":1: xyz: no option is called that; mtp-chat config lists those there are"),
        ("version = true\n", ":1: version: no option is called that"),
        ("\ntop-p = 2\n", ":2: top-p: "),
        ('temperature = "hot"\n', ":1: temperature: "),
        ('depth = "fast"\n', ":1: depth: 'fast' is neither 'auto' nor a number"),
        ("quiet = 1\n", ":1: quiet: expected true or false"),
        ("top-k = true\n", ":1: top-k: expected a number or a text in quotation marks"),
        ("top-k = [1]\n", ":1: top-k: expected a number or a text in quotation marks"),
        ("stop = [1979-05-27]\n", ":1: stop: expected a number or a text in quotation marks, or a"),
        ("seed = {}\n", ":1: seed: expected a number"),
        ("[top]\nk = 1\n", ":1: top: no option is called that"),
        ("a = \n", ":1: not TOML: "),
        ("seed = 1\nseed = 2\n", "not TOML: "),
        ("aliases = 3\n", ":1: expected a table, as [aliases] fast ="),
        ("[aliases]\nfast = 3\n", ":2: fast: expected a model in quotation marks"),
    ],
)
def test_what_is_wrong_is_one_line_with_its_number(config: Path, text: str, said: str) -> None:
    config.write_text(text)
    assert f"{config}{said}" in refused("config") or (
        "not TOML" in said and said in refused("config")
    )


def test_a_wrong_variable_is_named(config: Path) -> None:
    assert refused("Hi", MTP_EXACT="perhaps").startswith("MTP_EXACT: expected true or false")
    assert refused("Hi", MTP_TOP_P="2").startswith("MTP_TOP_P: top-p: ")


def test_a_broken_file_does_not_keep_help_from_coming(config: Path) -> None:
    config.write_text("a = ")
    assert run("--help").returncode == 0
    assert "not TOML" in refused("Hi")


def test_a_file_that_is_no_text_is_named(config: Path) -> None:
    config.write_bytes(b"a = \xff")
    assert "not UTF-8 text at byte 4" in refused("config")
    config.unlink()
    config.mkdir()
    assert "Is a directory; mend it, or name another with MTP_CONFIG" in refused("config")


def test_an_alias_is_a_model_in_every_command(config: Path, tmp_path: Path) -> None:
    config.write_text('[aliases]\nfast = "~/no/such.gguf"\n')
    assert f"{tmp_path}/no/such.gguf" in refused("Hi", "-m", "fast")
    done = subprocess.run(
        [sys.executable, "-c", "from mtp_convert.cli import main; main()", "inspect", "fast"],
        capture_output=True,
        text=True,
    )
    assert f"{tmp_path}/no/such.gguf" in done.stderr


def test_without_a_variable_it_is_in_the_users_folder_of_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MTP_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert settings_file.path().name == "config.toml"
    assert settings_file.path().parent.name == "mtp-cli"
    assert settings_file.read().values == {}


def test_keys_are_found_in_their_tables(config: Path) -> None:
    config.write_text('seed = 1\n"top-k" = 2\n[ aliases ] # mine\nseed = "x"\n')
    found = settings_file.read()
    assert found.lines == {"seed": 1, "top-k": 2, "aliases": 3, "aliases.seed": 4}
    config.write_text("aliases = []\n")
    with pytest.raises(MtpError, match="expected a table"):
        settings_file.read()
