"""One request at a scripted engine: what it is asked, and what its answer becomes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mtp_cli.conversation.repetition import Loop
from mtp_cli.conversation.speech import Ending
from mtp_cli.conversation.thought_first import ThoughtFirst
from mtp_cli.engine import Sampling
from mtp_cli.engine.grammar.source import json_schema
from mtp_cli.serve.answers import AnswerJob, Ask, Called, Desk, Done, Event, Failed, Said
from mtp_cli.serve.faults import ApiError
from mtp_cli.serve.requests import ChatRequest
from tests.chat.scripted import END, MERGED, said
from tests.conversation.test_tools import HERMES, PYTHONIC
from tests.serve.scripted import CHATML, ServedEngine, desk

GREEDY = Sampling(temperature=0)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Paris"}}\n</tool_call>'
THINKING = CHATML + "{# <think> #}"
OPENED = CHATML.replace("assistant\n", "assistant\n<think>")


def chat(*turns: tuple[str, str], **fields: Any) -> ChatRequest:
    messages = [{"role": role, "content": content} for role, content in turns]
    return ChatRequest.model_validate({"messages": messages, **fields})


def answered(at: Desk, request: ChatRequest, **ask: Any) -> list[Event]:
    events: list[Event] = []
    prompt = at.prompts.chat(request)
    AnswerJob(at, Ask(prompt, GREEDY, **ask), "", events.append).run()
    return events


def text_of(events: list[Event], kind: str = "content") -> str:
    return "".join(e.text for e in events if isinstance(e, Said) and e.kind == kind)


def done(events: list[Event]) -> Done:
    assert isinstance(events[-1], Done)
    return events[-1]


def test_an_answer_is_text_and_what_it_cost() -> None:
    engine = ServedEngine(said("Hello"))
    events = answered(desk(engine), chat(("user", "Hi")))
    assert text_of(events) == "Hello"
    assert done(events).finish_reason == "stop"
    usage = done(events).usage
    assert (usage.n_prompt, usage.n_answer) == (len(engine.prompts[0]), 6)


def test_a_conversation_that_comes_back_is_found_whole() -> None:
    """An answer keeps the ids that it came in, though its text would be read as others."""
    engine = ServedEngine([(97,), (98,), (END,)], said("Yes"))
    at = desk(engine)
    assert text_of(answered(at, chat(("user", "Hi")))) == "ab"
    events = answered(at, chat(("user", "Hi"), ("assistant", "ab"), ("user", "ab?")))
    first, second = engine.prompts
    assert second[: len(first) + 2] == [*first, 97, 98]
    assert MERGED in second[len(first) + 2 :]
    assert done(events).usage.n_cached == len(first) + 3  # the end of the turn, too


def test_conversations_that_take_turns_keep_their_ids_and_their_places() -> None:
    answers = [said("one" * 20), said("two" * 20), said("three"), said("four")]
    engine = ServedEngine(*answers)
    at = desk(engine)
    first, second = chat(("user", "A" * 50)), chat(("user", "B" * 50))
    answered(at, first)
    answered(at, second)
    for question, answer in (("A", "one"), ("B", "two")):
        turns = (("user", question * 50), ("assistant", answer * 20), ("user", "?"))
        events = answered(at, chat(*turns))
        assert done(events).usage.n_cached > 100


@pytest.mark.parametrize(("stop", "expected"), [("l", "He"), ("lo", "Hel"), ("x", "Hello")])
def test_a_stop_ends_the_answer_before_it(stop: str, expected: str) -> None:
    engine = ServedEngine(said("Hello"))
    events = answered(desk(engine), chat(("user", "Hi")), ending=Ending((stop,)))
    assert (text_of(events), done(events).finish_reason) == (expected, "stop")


def test_a_limit_cuts_and_says_so() -> None:
    events = answered(desk(ServedEngine(said("Hello"))), chat(("user", "Hi")), max_tokens=2)
    assert (text_of(events), done(events).finish_reason) == ("He", "length")


def test_a_loop_is_cut_as_a_limit_cuts() -> None:
    loop = Loop(max_period=4, min_times=3, min_tokens=12)
    events = answered(
        desk(ServedEngine(said("ab" * 200))), chat(("user", "Hi")), ending=Ending((), loop)
    )
    assert done(events).finish_reason == "length"
    assert len(text_of(events)) < 100


def test_reasoning_comes_apart() -> None:
    engine = ServedEngine(said("<think>Well.</think>\n\nYes"), template=THINKING)
    events = answered(desk(engine), chat(("user", "Hi")))
    assert (text_of(events, "reasoning"), text_of(events)) == ("Well.", "Yes")
    assert 0 < done(events).usage.n_reasoning < done(events).usage.n_answer


@pytest.mark.parametrize(
    "template", [THINKING, CHATML.replace("assistant\n", "assistant\n<think>")]
)
def test_a_grammar_leaves_reasoning_alone(template: str) -> None:
    """The answer's content keeps to it, wherever the reasoning was opened."""
    said_first = "" if template != THINKING else "<think>"
    engine = ServedEngine(said(f"{said_first}Well.</think>{{}}"), template=template)
    grammar = json_schema({"type": "object"})
    events = answered(desk(engine), chat(("user", "Hi")), grammar=grammar)
    assert (text_of(events, "reasoning"), text_of(events)) == ("Well.", "{}")
    assert isinstance(engine.constraints[0], ThoughtFirst)
    assert engine.grammars == [grammar]


def test_stops_do_not_count_in_reasoning() -> None:
    engine = ServedEngine(said("<think>a.b</think>c.d"), template=THINKING)
    events = answered(desk(engine), chat(("user", "Hi")), ending=Ending((".",)))
    assert (text_of(events, "reasoning"), text_of(events)) == ("a.b", "c")


def test_calls_are_read_out_of_the_answer() -> None:
    engine = ServedEngine(said(f"I look. {CALL}"), template=HERMES)
    events = answered(desk(engine), chat(("user", "Hi"), tools=[TOOL]))
    assert text_of(events) == "I look. "
    called = events[-2]
    assert isinstance(called, Called)
    assert [(call.name, json.loads(call.arguments)) for call in called.calls] == [
        ("weather", {"city": "Paris"})
    ]
    assert done(events).finish_reason == "tool_calls"


def test_one_call_is_taken_where_one_is_asked_for() -> None:
    engine = ServedEngine(said(CALL * 3), template=HERMES)
    events = answered(desk(engine), chat(("user", "Hi"), tools=[TOOL]), max_calls=1)
    assert isinstance(events[-2], Called)
    assert len(events[-2].calls) == 1


@pytest.mark.parametrize("fields", [{}, {"tools": [TOOL], "tool_choice": "none"}])
def test_without_tools_a_call_is_text(fields: dict[str, Any]) -> None:
    engine = ServedEngine(said(CALL), template=HERMES)
    events = answered(desk(engine), chat(("user", "Hi"), **fields))
    assert (text_of(events), done(events).finish_reason) == (CALL, "stop")
    assert b"weather" not in bytes(token for token in engine.prompts[0] if token < 256)


def test_calls_that_are_asked_for_need_a_format_that_is_known() -> None:
    at = desk(ServedEngine(template=PYTHONIC))
    request = chat(("user", "Hi"), tools=[TOOL], tool_choice="required")
    with pytest.raises(ApiError, match="format in which the model's chat template") as caught:
        at.prompts.calls(request, at.prompts.chat(request))
    assert (caught.value.param, caught.value.code) == ("tool_choice", "unsupported_parameter")


def test_tools_and_calls_go_to_the_template() -> None:
    engine = ServedEngine(said("Sun"), template=HERMES)
    call = {"id": "c1", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    request = ChatRequest.model_validate(
        {
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            ],
            "tools": [TOOL],
        }
    )
    assert text_of(answered(desk(engine), request)) == "Sun"
    prompt = bytes(token for token in engine.prompts[0] if token < 256).decode()
    assert '"name": "weather"' in prompt
    assert '"arguments": {"city": "Rome"}' in prompt
    assert prompt.endswith("<|tool|>sunny")


def test_texts_of_clients_are_no_control_tokens() -> None:
    engine = ServedEngine(said("No"), said("No"))
    at = desk(engine)
    answered(at, chat(("user", "<|im_end|>")))
    answered(at, chat(("user", "Hi")))
    assert engine.prompts[0].count(END) == engine.prompts[1].count(END) == 1


def test_the_system_prompt_stands_in_front_unless_there_is_one() -> None:
    engine = ServedEngine(*[said("Yes")] * 3)
    at = desk(engine, system="Be kind.")
    asked = (("user", "Hi"),), (("system", "Be bold."), ("user", "Hi"))
    for turns in (*asked, (("developer", "Be "), ("system", "calm."), ("user", "Hi"))):
        answered(at, chat(*turns))
    texts = [bytes(token for token in ids if token < 256).decode() for ids in engine.prompts]
    assert ["Be kind." in texts[0], "Be bold." in texts[1], "Be \n\ncalm." in texts[2]] == [
        True
    ] * 3
    assert "Be kind." not in texts[1]


def test_log_probabilities_are_of_the_tokens_that_are_shown() -> None:
    engine = ServedEngine([*said("Hel", end=False), *said("lo")])
    events = answered(desk(engine), chat(("user", "Hi")), n_top=2, ending=Ending(("o",)))
    shown = [one for event in events if isinstance(event, Said) for one in event.logprobs]
    assert b"".join(one.token for one in shown) == b"Hell"
    assert all(one.top[0] == (one.token, one.logprob) for one in shown)
    assert all(len(one.top) == 2 and one.logprob < 0 for one in shown)


def test_who_has_gone_costs_no_answer() -> None:
    engine = ServedEngine(said("Hello"))
    at, events = desk(engine), list[Event]()
    job = AnswerJob(at, Ask(at.prompts.chat(chat(("user", "Hi"))), GREEDY), "", events.append)
    job.stop()
    job.run()
    assert (events, engine.prompts) == ([], [])


def test_who_goes_ends_the_answer_within_a_round() -> None:
    engine = ServedEngine(said("Hello"))
    at, events = desk(engine), list[Event]()
    job = AnswerJob(at, Ask(at.prompts.chat(chat(("user", "Hi"))), GREEDY), "", events.append)
    engine.after_round = job.stop
    job.run()
    assert isinstance(events[-1], Failed)
    assert text_of(events) == "H"


@pytest.mark.parametrize(
    ("template", "fields", "code"),
    [
        (None, {}, "no_chat_template"),
        (CHATML, {"tools": [TOOL]}, "unsupported_parameter"),
        (CHATML, {"reasoning_effort": "huge"}, "invalid_value"),
        (CHATML, {"chat_template_kwargs": {"messages": []}}, "invalid_value"),
        ("{{ raise_exception('no') }}", {}, "invalid_value"),
    ],
)
def test_what_the_template_cannot_do_is_refused(
    template: str | None, fields: dict[str, Any], code: str
) -> None:
    with pytest.raises(ApiError) as caught:
        desk(ServedEngine(template=template)).prompts.chat(chat(("user", "Hi"), **fields))
    assert (caught.value.status, caught.value.code) == (400, code)


@pytest.mark.parametrize(
    "turns", [[("user", "x" * 100)], [("user", "x" * 10_000)], [("user", "x")] * 20]
)
def test_a_prompt_that_leaves_no_room_is_refused(turns: list[tuple[str, str]]) -> None:
    with pytest.raises(ApiError, match="has no room") as caught:
        desk(ServedEngine(n_ctx=50)).prompts.chat(chat(*turns))
    assert caught.value.code == "context_length_exceeded"


def test_pictures_are_refused_and_texts_in_parts_are_joined() -> None:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": "Hello"},
        {"type": "text", "text": "you"},
    ]
    engine = ServedEngine(said("Hi"))
    at = desk(engine)
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": parts}]})
    answered(at, request)
    assert b"Hello\nyou" in bytes(token for token in engine.prompts[0] if token < 256)
    parts.append({"type": "image_url", "image_url": {"url": "data:"}})
    request = ChatRequest.model_validate({"messages": [{"role": "user", "content": parts}]})
    with pytest.raises(ApiError) as caught:
        at.prompts.chat(request)
    assert caught.value.param == "messages[0].content[2]"
