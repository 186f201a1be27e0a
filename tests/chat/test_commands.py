"""The slash commands, on a chat with a scripted engine."""

from __future__ import annotations

import dataclasses
import io
import json
import re
from pathlib import Path

import pytest

from mtp_cli.chat.chat import Chat
from mtp_cli.chat.commands import COMMANDS, dispatch
from mtp_cli.conversation.repetition import STUCK
from mtp_cli.conversation.saved import load
from mtp_cli.conversation.session import Session, Settings
from mtp_cli.conversation.speech import Ending
from mtp_cli.engine import Sampling
from mtp_cli.errors import MtpError
from mtp_cli.models import ModelFiles
from tests.chat.scripted import CHATML, ScriptedEngine, said
from tests.chat.window import window


def chat_with(engine: ScriptedEngine) -> Chat:
    return Chat(
        session=Session(engine),
        settings=Settings(Sampling(temperature=0.0)),
        files=ModelFiles(Path("/models/tiny.gguf"), None),
        n_ctx=engine.n_ctx,
        out=io.StringIO(),
        err=io.StringIO(),
        is_conversation=True,
    )


def shown(chat: Chat) -> str:
    assert isinstance(chat.err, io.StringIO)
    return chat.err.getvalue()


def ask(chat: Chat, text: str) -> None:
    chat.show(chat.session.ask(text, chat.settings))


def contents(chat: Chat) -> list[str]:
    return [message["content"] for message in chat.session.messages]


@pytest.mark.parametrize(
    ("line", "command"),
    [
        *((word, "/exit") for word in ("exit", "quit", "Exit", ":q", "exit()", "quit ")),
        *((word, "/help") for word in ("help", "?", "HELP")),
    ],
)
def test_what_other_programs_call_a_command_is_asked_about(line: str, command: str) -> None:
    chat = chat_with(ScriptedEngine())
    chat.quiet = True
    assert dispatch(chat, line) is True
    assert contents(chat) == []
    assert shown(chat) == (
        f"not sent: you may mean {command}; "
        f"with a space before it, {line.rstrip()} goes to the model\n"
    )


@pytest.mark.parametrize("line", [" exit", "  ?", "exit the loop", "help me", "quit?", ":quirk"])
def test_what_only_contains_such_a_word_is_a_message(line: str) -> None:
    assert dispatch(chat_with(ScriptedEngine()), line) is False


def test_what_other_chats_call_their_commands_runs_ours() -> None:
    chat = chat_with(ScriptedEngine())
    dispatch(chat, "/?")
    assert "begin a new conversation" in shown(chat)
    with pytest.raises(EOFError):
        dispatch(chat, "/bye")


@pytest.mark.parametrize(
    "line", ["hello", "/etc/passwd is a file", " /help", "/usr/bin", "a /help"]
)
def test_what_is_no_command_is_a_message(line: str) -> None:
    assert dispatch(chat_with(ScriptedEngine()), line) is False


def test_an_unknown_command_is_one_clear_line() -> None:
    with pytest.raises(MtpError, match="no command /hepl; /help lists them"):
        dispatch(chat_with(ScriptedEngine()), "/hepl me")


def test_a_command_may_be_shortened_to_what_is_unique() -> None:
    chat = chat_with(ScriptedEngine())
    dispatch(chat, "/sys Be brief.")
    assert chat.session.system == "Be brief."
    with pytest.raises(MtpError, match="/s could be /system or /schema or /save or /stats"):
        dispatch(chat, "/s")


def test_help_lists_every_command() -> None:
    chat = chat_with(ScriptedEngine())
    dispatch(chat, "/help")
    assert all(f"{c.name} {c.argument}".strip() in shown(chat) for c in COMMANDS)
    assert "\x1b" not in shown(chat)


def test_help_keeps_its_words_whole_in_a_narrow_window() -> None:
    chat = chat_with(ScriptedEngine())
    with window(30) as narrow:
        chat.err = narrow.screen
        dispatch(chat, "/help")
        lines = narrow.shown().split("\n")
    assert max(map(len, lines)) <= 30
    at = lines.index("/system [TEXT]")
    assert lines[at + 1 : at + 3] == ["  show the system prompt or", "  set it; off for none"]


@pytest.mark.parametrize("line", ["/undo 3", "/clear x", "/exit now", "/stats all", "/und 1"])
def test_a_command_without_an_argument_takes_none(line: str) -> None:
    chat = chat_with(ScriptedEngine(said("one")))
    ask(chat, "first")
    with pytest.raises(MtpError, match=r"^/[a-z]+ takes no argument$"):
        dispatch(chat, line)
    assert contents(chat) == ["first", "one"]


@pytest.mark.parametrize("line", ["/exit", "/quit", "/EXIT"])
def test_exit_leaves(line: str) -> None:
    with pytest.raises(EOFError):
        dispatch(chat_with(ScriptedEngine()), line)


def test_clear_begins_anew_and_keeps_the_system_prompt() -> None:
    chat = chat_with(ScriptedEngine(said("Hello")))
    dispatch(chat, "/system Be brief.")
    ask(chat, "Hi")
    dispatch(chat, "/clear")
    assert contents(chat) == []
    assert chat.session.system == "Be brief."


def test_undo_takes_back_one_exchange() -> None:
    chat = chat_with(ScriptedEngine(said("one"), said("two")))
    ask(chat, "first")
    ask(chat, "second\nline")
    dispatch(chat, "/undo")
    assert contents(chat) == ["first", "one"]
    assert "took back: second line" in shown(chat)
    dispatch(chat, "/undo")
    with pytest.raises(MtpError, match="nothing to undo"):
        dispatch(chat, "/undo")


def test_regen_answers_again_with_another_seed_and_temperature() -> None:
    engine = ScriptedEngine(said("one"), said("two"), said("three"))
    chat = chat_with(engine)
    chat.settings = Settings(Sampling(temperature=0.7, seed=5))
    ask(chat, "first")
    dispatch(chat, "/retry")
    dispatch(chat, "/retry 1.5")
    assert contents(chat) == ["first", "three"]
    asked = [sampling for sampling, *_ in engine.asked]
    assert [sampling.temperature for sampling in asked] == [0.7, 0.7, 1.5]
    assert len({sampling.seed for sampling in asked}) == 3


def test_regen_says_that_greedy_answers_repeat() -> None:
    chat = chat_with(ScriptedEngine(said("one"), said("one")))
    ask(chat, "first")
    dispatch(chat, "/retry")
    assert "/retry 0.8 varies it" in shown(chat)


@pytest.mark.parametrize("text", ["-1", "hot", "nan", "inf"])
def test_regen_refuses_what_is_no_temperature(text: str) -> None:
    chat = chat_with(ScriptedEngine(said("one")))
    ask(chat, "first")
    with pytest.raises(MtpError, match="expected a temperature"):
        dispatch(chat, f"/retry {text}")
    assert contents(chat) == ["first", "one"]


def test_a_stopped_regen_keeps_the_old_answer_when_nothing_was_said() -> None:
    chat = chat_with(ScriptedEngine(said("one"), said("two")))
    ask(chat, "first")
    answer = chat.session.regenerate(chat.settings)
    answer.stop()
    chat.show(answer)
    assert contents(chat) == ["first", "one"]
    assert "stopped before the first word" in shown(chat)


def test_system_shows_sets_and_drops() -> None:
    chat = chat_with(ScriptedEngine())
    dispatch(chat, "/system")
    assert "no system prompt" in shown(chat)
    dispatch(chat, "/system\nYou are\na cat.")
    dispatch(chat, "/system")
    assert "You are\na cat.\n" in shown(chat)
    dispatch(chat, "/system off")
    assert chat.session.system is None


def test_system_tells_what_the_template_itself_puts_in_front() -> None:
    own = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are Bob.<|im_end|>\n"
    chat = chat_with(ScriptedEngine(template=own + "{% endif %}" + CHATML))
    dispatch(chat, "/system")
    assert shown(chat) == "the chat template's own:\nYou are Bob.\n"
    dispatch(chat, "/system off")
    dispatch(chat, "/system")
    assert shown(chat).endswith("no system prompt from now on\nno system prompt\n")


def test_a_long_system_prompt_breaks_between_words() -> None:
    with window(20) as narrow:
        chat = dataclasses.replace(chat_with(ScriptedEngine()), err=narrow.screen)
        chat.session.system = "You answer questions correctly.\x1b[2J"
        dispatch(chat, "/system")
        assert narrow.shown() == "You answer questions\ncorrectly.␛[2J\n"


def test_system_off_says_what_cannot_be_removed() -> None:
    always = "You are Bob.\n{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}"
    chat = chat_with(ScriptedEngine(template=always))
    dispatch(chat, "/system off")
    assert "whatever it is told: You are Bob." in shown(chat)


def test_more_goes_on_with_an_answer_that_was_cut() -> None:
    chat = chat_with(ScriptedEngine(said("one two"), said(" two")))
    chat.is_conversation = True
    chat.settings = dataclasses.replace(chat.settings, max_tokens=3)
    ask(chat, "first")
    assert "cut at 3 tokens (/more goes on, -n sets another limit)" in shown(chat)
    chat.settings = dataclasses.replace(chat.settings, max_tokens=30)
    dispatch(chat, "/more")
    assert contents(chat) == ["first", "one two"]
    assert len(chat.history) == 2
    with pytest.raises(MtpError, match="came to its own end"):
        dispatch(chat, "/more")


def test_a_loop_is_told_with_what_to_do() -> None:
    chat = chat_with(ScriptedEngine(said("no, " * 500), n_ctx=5000))
    chat.settings = dataclasses.replace(chat.settings, ending=Ending(loop=STUCK))
    ask(chat, "first")
    told = "tokens: the same 4 tokens came again and again (/more goes on, "
    told += "--no-loop-guard does not stop it)"
    assert told in shown(chat)


def test_an_answer_without_a_word_says_why() -> None:
    thought = said("<think>Hm, END of it</think>END")
    chat = chat_with(ScriptedEngine(said(""), said("END of it"), thought))
    chat.is_conversation = True
    ask(chat, "first")
    assert shown(chat).startswith("the answer is empty\n")
    chat.settings = dataclasses.replace(chat.settings, ending=Ending(("END",)))
    ask(chat, "second")
    assert "stopped at a text of --stop (/more goes on)\n" in shown(chat)
    ask(chat, "third")
    assert shown(chat).count("stopped at a text of --stop (/more goes on)\n") == 2


def test_a_full_context_is_told_once() -> None:
    chat = chat_with(ScriptedEngine(*[said("x" * 60)] * 3, n_ctx=250))
    for question in ("first", "second", "third"):
        ask(chat, question)
    told = "the context is full: the oldest exchange is left out from now on\n"
    assert shown(chat).count(told) == 1
    assert len(contents(chat)) == 6


def test_a_full_context_offers_more_only_where_something_can_be_left_out() -> None:
    chat = chat_with(ScriptedEngine(said("y"), said("x" * 300), said("z" * 300), n_ctx=250))
    chat.is_conversation = True
    ask(chat, "first")
    ask(chat, "second")
    assert "the context is full (/more goes on, --ctx sets a larger one)" in shown(chat)
    dispatch(chat, "/more")
    assert shown(chat).count("/more goes on") == 1
    assert "the context is full (--ctx sets a larger one)" in shown(chat)
    with pytest.raises(MtpError, match="this answer fills the context of 250 tokens"):
        dispatch(chat, "/more")


def test_clear_ends_what_could_go_on() -> None:
    chat = chat_with(ScriptedEngine(said("one two")))
    chat.settings = dataclasses.replace(chat.settings, max_tokens=3)
    ask(chat, "first")
    dispatch(chat, "/clear")
    with pytest.raises(MtpError, match="no answer to go on with"):
        dispatch(chat, "/more")


def test_a_raw_conversation_has_no_system_prompt() -> None:
    chat = chat_with(ScriptedEngine(template=None))
    with pytest.raises(MtpError, match="needs a chat template"):
        dispatch(chat, "/system Be brief.")


def test_save_and_load_give_the_conversation_back(tmp_path: Path) -> None:
    chat = chat_with(ScriptedEngine(said("one"), said("two")))
    dispatch(chat, "/system Be brief.")
    ask(chat, "first")
    dispatch(chat, f"/save {tmp_path}/my talk.json")
    saved = load(tmp_path / "my talk.json")
    assert saved.model == "tiny"
    assert saved.sampling == json.loads(json.dumps(dataclasses.asdict(Sampling(temperature=0.0))))

    later = chat_with(ScriptedEngine(said("two")))
    later.files = ModelFiles(Path("/models/other.gguf"), None)
    dispatch(later, f"/load {tmp_path}/my talk.json")
    assert contents(later) == ["first", "one"]
    assert later.session.system == "Be brief."
    assert "they were said to tiny" in shown(later)
    assert "the last answer: one" in shown(later)
    ask(later, "second")
    assert contents(later) == ["first", "one", "second", "two"]


@pytest.mark.parametrize("line", ["/save", "/load", "/save /no/such/place", "/load /no/such/file"])
def test_a_bad_file_loses_nothing(line: str) -> None:
    chat = chat_with(ScriptedEngine(said("one")))
    ask(chat, "first")
    with pytest.raises(MtpError):
        dispatch(chat, line)
    assert contents(chat) == ["first", "one"]


def test_stats_show_the_last_answer_beside_all() -> None:
    chat = chat_with(ScriptedEngine(said("one"), [(1, 2), *said("two")]))
    with pytest.raises(MtpError, match="before the first answer"):
        dispatch(chat, "/stats")
    ask(chat, "first")
    ask(chat, "second")
    dispatch(chat, "/stats")
    rows = {
        line[:18].strip(): line[18:].split() for line in shown(chat).splitlines() if len(line) > 18
    }
    assert rows["rounds"] == ["5", "9"]
    assert rows["answer tokens"] == ["6", "10"]
    assert rows["accepted at 1"] == ["1/5", "20%", "1/9", "11%"]
    assert rows["accepted at 2"] == ["0/5", "0%", "0/9", "0%"]
    assert rows["first token, ms"] == ["250", "250"]
    assert rows["times plain"] == ["unknown", "unknown"]
    assert "context 6% full: 61 of 1,000 tokens" in shown(chat)


@pytest.mark.parametrize("columns", [20, 30, 45, 46, 60])
def test_stats_are_whole_in_a_narrow_window(columns: int) -> None:
    chat = chat_with(ScriptedEngine([*said("one")], [*[(1, 2)] * 90, *said("two")]))
    ask(chat, "first")
    ask(chat, "second")
    with window(columns) as narrow:
        chat.err = narrow.screen
        dispatch(chat, "/stats")
        lines = [line.rstrip() for line in narrow.shown().splitlines()]
    assert max(map(len, lines)) <= columns
    text = " ".join(" ".join(lines).split())
    assert "…" not in text
    assert "last answer" in text
    assert "all 2" in text
    assert text.count("unknown") == 2
    assert "accepted at 1" in text
    assert "90/94 96%" in text


def test_stats_compare_with_plain_decoding_where_that_is_known() -> None:
    engine = ScriptedEngine(said("one"), said("two"))
    chat = chat_with(engine)
    ask(chat, "first")
    engine.plain_s, engine.compared_s = 1.0, 0.5
    ask(chat, "second")
    dispatch(chat, "/stats")
    assert re.search(r"times plain +2\.00 +2\.00", shown(chat))


def test_an_answer_goes_to_out_and_what_it_cost_to_err() -> None:
    chat = chat_with(ScriptedEngine(said("One day.")))
    ask(chat, "first")
    assert isinstance(chat.out, io.StringIO)
    assert chat.out.getvalue() == "One day.\n"
    assert shown(chat) == "16 tok/s\n"


@pytest.mark.parametrize("columns", [200, 80, 27, 20, 12, 9])
def test_the_line_under_an_answer_never_breaks_inside_a_number(columns: int) -> None:
    engine = ScriptedEngine(said("One day."))
    engine.plain_s, engine.compared_s = 0.85, 0.5
    chat = chat_with(engine)
    with window(columns) as narrow:
        chat.err = narrow.screen
        ask(chat, "first")
        shown = narrow.shown()
    assert shown.split() == ["16", "tok/s,", "1.7", "times", "plain"]
    assert all(len(line) <= columns for line in shown.splitlines())


def test_an_answer_that_never_began_has_no_statistics() -> None:
    chat = chat_with(ScriptedEngine(said("Hello")))
    answer = chat.session.ask("Hi", chat.settings)
    answer.stop()
    chat.show(answer)
    assert shown(chat) == "stopped before the first word\n"
    assert chat.history == []


def test_a_quiet_chat_says_nothing_beside_the_answer() -> None:
    chat = chat_with(ScriptedEngine(said("x" * 9, end=False)))
    chat.quiet = True
    chat.settings = Settings(Sampling(temperature=0.0), max_tokens=3)
    ask(chat, "first")
    assert shown(chat) == ""


@pytest.mark.parametrize(
    ("max_tokens", "said_"), [(3, "cut at 3 tokens"), (None, "context is full")]
)
def test_an_answer_cut_short_says_why(max_tokens: int | None, said_: str) -> None:
    chat = chat_with(ScriptedEngine(said("x" * 99, end=False), n_ctx=100))
    chat.settings = Settings(Sampling(temperature=0.0), max_tokens=max_tokens)
    ask(chat, "first")
    assert said_ in shown(chat)


SWITCHES = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n{{ '<think></think>' if enable_thinking is false }}"
)


def test_think_tells_sets_and_hides() -> None:
    chat = chat_with(ScriptedEngine(said("<think>Hm.</think>Yes."), template=SWITCHES))
    dispatch(chat, "/think")
    assert "thinking: as the chat template has it; hidden" in shown(chat)
    dispatch(chat, "/think show")
    dispatch(chat, "/think off")
    assert "thinking: off; shown" in shown(chat)
    ask(chat, "So?")
    assert isinstance(chat.out, io.StringIO)
    assert chat.out.getvalue() == "<think>\nHm.\n</think>\n\nYes.\n"
    with pytest.raises(MtpError, match=r"/think takes off, on, .* or hide, not loudly"):
        dispatch(chat, "/think loudly")


def test_think_says_what_the_template_does_not_know() -> None:
    chat = chat_with(ScriptedEngine())
    dispatch(chat, "/think off")
    assert "the chat template has no such switch for thinking" in shown(chat)


def test_a_system_prompt_without_a_place_is_noted_once() -> None:
    template = "{% for m in messages if m.role != 'system' %}{{ m.content }}\n{% endfor %}"
    chat = chat_with(ScriptedEngine(said("a"), said("b"), template=template))
    chat.session.system = "Be terse."
    ask(chat, "one")
    ask(chat, "two")
    assert shown(chat).count("it goes in front of the first question") == 1


def test_reasoning_is_saved_and_loaded(tmp_path: Path) -> None:
    chat = chat_with(ScriptedEngine(said("<think>Hm.</think>Yes.")))
    ask(chat, "So?")
    dispatch(chat, f"/save {tmp_path / 'talk.json'}")
    other = chat_with(ScriptedEngine())
    dispatch(other, f"/load {tmp_path / 'talk.json'}")
    assert other.session.messages == chat.session.messages
    assert other.session.messages[1]["reasoning"] == "Hm."
