"""Conversations are in the log while they are held, and go on from it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pexpect
import pytest

from mtp_cli.chat import commands
from mtp_cli.chat.chat import Chat
from mtp_cli.chat.kept import KeptChat, is_wanted
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.engine import Sampling
from mtp_cli.log.store import About, Kept, Log
from mtp_cli.models import ModelFiles
from tests.chat.scripted import ScriptedEngine, said
from tests.engine import tiny

# pexpect forks, which Python 3.12 and later warn of wherever a library has started threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*forkpty:DeprecationWarning")

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "mtp_cli.chat"]
PROMPT = "\x1b[?2004h"  # pasting is asked for where a line is read


def about(chat: Chat) -> About:
    return About(model="m", name="m", fingerprint="f", system=chat.session.system)


def chat_with(engine: ScriptedEngine, file: Path, before: Kept | None = None) -> Chat:
    chat = Chat(
        session=Session(engine),
        settings=Settings(Sampling(temperature=0.0)),
        files=ModelFiles(Path("/models/tiny.gguf"), None),
        n_ctx=engine.n_ctx,
        out=io.StringIO(),
        err=io.StringIO(),
        is_conversation=True,
    )
    chat.kept = KeptChat(file, about, before)
    return chat


def ask(chat: Chat, text: str) -> None:
    chat.show(chat.session.ask(text, chat.settings))


def obey(chat: Chat, line: str) -> None:
    assert commands.dispatch(chat, line)
    chat.follow()


def kept(file: Path) -> list[tuple[int, list[str]]]:
    """Every conversation: its texts, the newest conversation first."""
    with Log(file) as log:
        found = [log.read(entry.id) for entry in log.entries(99)]
    return [
        (k.place.id, [m["content"] for m in k.conversation.messages] + [k.unanswered or ""])
        for k in found
        if k is not None
    ]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


def test_a_question_is_kept_before_its_answer_begins(file: Path) -> None:
    engine = ScriptedEngine(said("Hello"), said("Again"))
    chat = chat_with(engine, file)
    ask(chat, "Hi")
    seen: list[list[tuple[int, list[str]]]] = []
    engine.after_round = lambda: seen.append(kept(file))
    ask(chat, "Once more")
    assert seen[0] == [(1, ["Hi", "Hello", "Once more"])]
    assert kept(file) == [(1, ["Hi", "Hello", "Once more", "Again", ""])]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/undo", [(1, ["Hi", "Hello", ""])]),
        ("/regen", [(1, ["Hi", "Hello", "Bye", "Third", ""])]),
        ("/system Be brief.", [(1, ["Hi", "Hello", "Bye", "Second", ""])]),
    ],
)
def test_commands_change_what_is_kept(
    file: Path, line: str, expected: list[tuple[int, list[str]]]
) -> None:
    chat = chat_with(ScriptedEngine(said("Hello"), said("Second"), said("Third")), file)
    ask(chat, "Hi")
    ask(chat, "Bye")
    obey(chat, line)
    assert kept(file) == expected
    with Log(file) as log:
        found = log.read(1)
    assert found is not None
    assert found.about.system == chat.session.system


def test_after_clear_and_load_another_conversation_is_kept(file: Path, tmp_path: Path) -> None:
    chat = chat_with(ScriptedEngine(said("Hello"), said("Second"), said("Third")), file)
    ask(chat, "Hi")
    obey(chat, f"/save {tmp_path}/talk.json")
    obey(chat, "/clear")
    ask(chat, "Bye")
    obey(chat, f"/load {tmp_path}/talk.json")
    ask(chat, "So?")
    assert kept(file) == [
        (3, ["Hi", "Hello", "So?", "Third", ""]),
        (2, ["Bye", "Second", ""]),
        (1, ["Hi", "Hello", ""]),
    ]


def test_a_question_stopped_before_the_first_word_makes_room(file: Path) -> None:
    engine = ScriptedEngine([], said("Hello"))
    chat = chat_with(engine, file)
    answer = chat.session.ask("Oops", chat.settings)
    answer.stop()
    chat.show(answer)
    assert kept(file) == [(1, ["Oops"])]
    ask(chat, "Hi")
    assert kept(file) == [(1, ["Hi", "Hello", ""])]


@pytest.mark.parametrize("break_", [lambda f: f.write_bytes(b"no database" * 999), Path.mkdir])
def test_a_log_that_cannot_be_written_is_said_once(
    file: Path, break_: Callable[[Path], object]
) -> None:
    break_(file)
    chat = chat_with(ScriptedEngine(said("Hello"), said("Second")), file)
    ask(chat, "Hi")
    ask(chat, "Bye")
    assert isinstance(chat.err, io.StringIO)
    assert chat.err.getvalue().count("no longer kept in the log") == 1
    assert isinstance(chat.out, io.StringIO)
    assert chat.out.getvalue() == "Hello\nSecond\n"


LIMITED = """
import io, resource, signal, sys
from pathlib import Path
from tests.chat.test_kept import ask, chat_with
from tests.chat.scripted import ScriptedEngine, said

engine = ScriptedEngine(*[said("Hello")] * 9, n_ctx=10**6)
chat = chat_with(engine, Path(sys.argv[1]))
ask(chat, "Hi")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for _ in range(4):
    ask(chat, "x" * 60_000)
print(chat.out.getvalue().count("Hello"), chat.err.getvalue().count("no longer kept"))
"""


def test_a_full_disk_does_not_end_a_conversation(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(file)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "5 1\n", done.stderr
    assert kept(file)[0][1][:2] == ["Hi", "Hello"]


def test_what_is_kept_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTP_NO_LOG", raising=False)
    assert is_wanted(None, usually=True)
    assert not is_wanted(None, usually=False)
    assert is_wanted(True, usually=False)
    assert not is_wanted(False, usually=True)
    monkeypatch.setenv("MTP_NO_LOG", "1")
    assert not is_wanted(None, usually=True)
    assert is_wanted(True, usually=True)


# The real command, with a tiny model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.llama().write(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MTP_NO_LOG", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=ROOT,
        text=True,
        timeout=120,
    )


LIKE = ("-t", "0", "-n", "12", "--ctx", "512", "--depth", "0")


@pytest.mark.usefixtures("environment")
def test_a_pipe_is_kept_when_asked_and_goes_on_id_by_id(model: Path) -> None:
    dry = ("--dry-multiplier", "0.5", "--dry-sequence-breaker", ":")  # a list, in JSON
    begun = run("-m", str(model), *LIKE, *dry, "--log", "--json", "Some words")
    assert begun.returncode == 0, begun.stderr
    said_first = json.loads(begun.stdout)
    gone_on = run("--continue", "and more", "--json", "--depth", "0")
    assert gone_on.returncode == 0, gone_on.stderr
    found = json.loads(gone_on.stdout)
    assert found["model"] == str(model)
    assert found["prompt_tokens"] >= said_first["prompt_tokens"] + 12 + len("and more")
    assert found["completion_tokens"] == 12
    listed = run("log").stdout
    assert listed.count("\n") == 1
    assert "Some words" in listed
    shown = run("log", "show", "1").stdout
    assert shown.index("Some words") < shown.index("and more")


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("args", [(), ("--log", "--no-log")])
def test_a_pipe_is_not_kept_unless_asked(model: Path, args: tuple[str, ...]) -> None:
    assert run("-m", str(model), *LIKE, *args, "Some words").returncode == 0
    assert "no conversation was kept yet" in run("log").stderr
    gone_on = run("--continue", "more")
    assert (gone_on.returncode, gone_on.stdout) == (1, "")
    assert gone_on.stderr.startswith("error: no conversation was kept yet")


@pytest.mark.usefixtures("environment")
def test_another_model_reads_the_text_and_says_so(model: Path, tmp_path: Path) -> None:
    other = tiny.gemma2().write(tmp_path / "other.gguf")
    assert run("-m", str(model), *LIKE, "--log", "Some words").returncode == 0
    gone_on = run("-m", str(other), "--continue", "1", *LIKE, "more")
    assert gone_on.returncode == 0, gone_on.stderr
    assert "it was held with tiny: this model reads its text anew" in gone_on.stderr
    missing = run("-m", str(tiny.mimo2().write(tmp_path / "third.gguf")), "--continue")
    assert missing.stderr == (
        "error: no conversation with third is kept; mtp-chat log lists them\n"
    )
    assert "there is no conversation 99" in run("--continue", "99").stderr
    assert run("--continue=one").returncode == 2


@pytest.mark.usefixtures("environment")
def test_exports_search_and_deletion(model: Path, tmp_path: Path) -> None:
    assert run("-m", str(model), *LIKE, "--log", "Some peculiar words").returncode == 0
    saved = tmp_path / "talk.json"
    assert run("log", "export", "-o", str(saved)).returncode == 0
    fields = json.loads(saved.read_text())
    assert fields["messages"][0] == {"role": "user", "content": "Some peculiar words"}
    assert json.loads(run("log", "export", "1", "--format", "json").stdout) == fields
    assert run("log", "export").stdout == run("log", "show").stdout
    assert run("log", "export", "--format", "pdf").returncode == 2
    assert "Some peculiar words" in run("log", "search", "peculiar").stdout
    nothing = run("log", "search", "unheard-of")
    assert (nothing.stdout, nothing.stderr) == ("", "nothing found\n")
    assert run("log", "delete").returncode == 2
    assert "there is no conversation 7" in run("log", "delete", "7").stderr
    assert run("log", "delete", "1").stderr == "deleted 1 conversation\n"
    assert run("log").stdout == ""


def spawn(*args: str) -> pexpect.spawn:
    environment = {**os.environ, "TERM": "xterm", "NO_COLOR": "1"}
    return pexpect.spawn(
        COMMAND[0],
        [*COMMAND[1:], *args],
        cwd=str(ROOT),
        env=environment,
        encoding="utf-8",
        timeout=60,
        dimensions=(30, 100),
    )


def say(chat: pexpect.spawn, text: str) -> None:
    """Ask, and wait until the next question can be asked."""
    chat.expect_exact(PROMPT)
    chat.send(f"{text}\r")
    chat.expect("tok/s")
    chat.expect_exact(PROMPT)


@pytest.mark.usefixtures("environment")
def test_a_killed_conversation_goes_on_in_a_terminal(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "state" / "mtp-chat" / "conversations.db"
    chat = spawn("-m", str(model), *LIKE)
    chat.expect("leaves")
    say(chat, "Some words")
    chat.send("next")  # it is at the prompt again
    chat.expect("next")
    chat.kill(9)
    chat.wait()
    before = kept(file)
    assert before[0][1][0] == "Some words"
    chat = spawn("--continue", *LIKE)
    chat.expect("going on with conversation 1: 1 answered")
    chat.expect("leaves")
    say(chat, "and more")
    chat.sendeof()
    chat.expect(pexpect.EOF)
    [(_, texts)] = kept(file)
    assert texts[:2] == before[0][1][:2]
    assert texts[2] == "and more"
    assert len(texts) == 5


@pytest.mark.usefixtures("environment")
def test_a_conversation_is_not_kept_where_the_environment_says_so(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MTP_NO_LOG", "1")
    chat = spawn("-m", str(model), *LIKE)
    chat.expect("leaves")
    say(chat, "Some words")
    chat.sendeof()
    chat.expect(pexpect.EOF)
    assert not (tmp_path / "state" / "mtp-chat" / "conversations.db").exists()
