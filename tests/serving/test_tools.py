"""Functions that the model may call: offered through its own chat template, called with arguments
after their schemas, complete and in streams.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai", "llguidance"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer  # noqa: E402
from tool_templates import HERMES  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402

HELLO: Any = [{"role": "user", "content": "What is the weather in Rome?"}]
WEATHER = {
    "type": "object",
    "properties": {
        "city": {"enum": ["Rome", "Oslo"]},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
    },
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS: Any = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Looks outside.", "parameters": WEATHER},
    },
    {"type": "function", "function": {"name": "now", "strict": True}},
]
TEMPLATE_TOOLS = [
    {
        "type": "function",
        "function": {"name": "weather", "description": "Looks outside.", "parameters": WEATHER},
    },
    {
        "type": "function",
        "function": {"name": "now", "parameters": {"type": "object", "properties": {}}},
    },
]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo", "days": 3}}\n</tool_call>'
SECOND_CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'


@pytest.fixture(scope="module")
def tool_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder: Path = tmp_path_factory.mktemp("tool_tokenizer")
    tokenizer = tiny.tokenizer()
    tokenizer.chat_template = HERMES
    tokenizer.save_pretrained(folder)
    return ChatTokenizer.open(folder)


@pytest.fixture(scope="module")
def _tool_server(tool_tokenizer: ChatTokenizer) -> Iterator[LiveServer]:
    server = LiveServer(tool_tokenizer, context=2048)
    yield server
    server.stop()


@pytest.fixture
def tool_server(_tool_server: LiveServer) -> LiveServer:
    _tool_server.engine.reset()
    return _tool_server


@pytest.fixture
def client(tool_server: LiveServer) -> Iterator[openai.OpenAI]:
    url = f"{tool_server.url}/v1"
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


def say(monkeypatch: pytest.MonkeyPatch, server: LiveServer, prompt: list[int], text: str) -> None:
    """Make the model prefer `text` as its answer."""
    ids = [*server.batcher.tokenizer.encode(text), 2]

    def logits(tokens: list[int]) -> np.ndarray:
        row = np.zeros(300, np.float32)
        place = min(max(len(tokens) - len(prompt), 0), len(ids) - 1)
        row[ids[place]] = 9
        return row

    monkeypatch.setattr(server.engine, "logits", logits)


def tool_prompt(tokenizer: ChatTokenizer) -> list[int]:
    return tokenizer.chat(HELLO, TEMPLATE_TOOLS)


def ask(client: openai.OpenAI, **fields: Any) -> Any:
    defaults: dict[str, Any] = {"model": "light", "messages": HELLO, "tools": TOOLS}
    return client.chat.completions.create(**defaults | {"temperature": 0, "seed": 1} | fields)


def from_stream(chunks: Any) -> tuple[str, list[dict[str, str]], str]:
    """Content, calls and finish reason, put together as clients do."""
    content, calls, finish = "", [], ""
    for chunk in chunks:
        (choice,) = chunk.choices
        content += choice.delta.content or ""
        finish = choice.finish_reason or finish
        for part in choice.delta.tool_calls or []:
            if part.function.name:
                assert part.index == len(calls)
                assert part.id
                assert part.type == "function"
                calls.append({"name": part.function.name, "arguments": ""})
            calls[part.index]["arguments"] += part.function.arguments or ""
    return content, calls, finish


@pytest.mark.parametrize(
    ("text", "content", "names"),
    [
        (CALL, None, ["weather"]),
        (f"Let me look.\n{CALL}", "Let me look.", ["weather"]),
        (f"{CALL}\n{SECOND_CALL}", None, ["weather", "now"]),
        ("It rains <tool> there. ", "It rains <tool> there. ", []),
    ],
)
def test_answers_with_and_without_calls(
    client: openai.OpenAI,
    tool_server: LiveServer,
    tool_tokenizer: ChatTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    text: str,
    content: str | None,
    names: list[str],
) -> None:
    prompt = tool_prompt(tool_tokenizer)
    say(monkeypatch, tool_server, prompt, text)
    for choice_of_tools in ("auto", None):
        completion = ask(client, tool_choice=choice_of_tools)
        (choice,) = completion.choices
        assert completion.usage.prompt_tokens == len(prompt)
        assert choice.finish_reason == ("tool_calls" if names else "stop")
        assert choice.message.content == content
        calls = choice.message.tool_calls or []
        assert [call.function.name for call in calls] == names
        assert len({call.id for call in calls}) == len(names)
        for call in calls:
            arguments = {"city": "Oslo", "days": 3} if call.function.name == "weather" else {}
            assert json.loads(call.function.arguments) == arguments
    streamed = from_stream(ask(client, stream=True))
    arguments_texts = [call.function.arguments for call in calls]
    expected_calls = [
        {"name": name, "arguments": arguments}
        for name, arguments in zip(names, arguments_texts, strict=True)
    ]
    assert streamed == (content or "", expected_calls, choice.finish_reason)


def test_one_call_when_several_are_not_allowed(
    client: openai.OpenAI,
    tool_server: LiveServer,
    tool_tokenizer: ChatTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, tool_server, tool_prompt(tool_tokenizer), f"{CALL}\n{SECOND_CALL}")
    (choice,) = ask(client, parallel_tool_calls=False).choices
    assert [call.function.name for call in choice.message.tool_calls] == ["weather"]


@pytest.mark.parametrize("temperature", [0, 1])
def test_calls_that_are_required_follow_the_schema(
    client: openai.OpenAI, temperature: float
) -> None:
    """The model would rather write anything else: its logits are random."""
    for seed in range(3):
        named: Any = {"type": "function", "function": {"name": "weather"}}
        fields: dict[str, Any] = {"temperature": temperature, "seed": seed, "max_tokens": 200}
        (choice,) = ask(client, tool_choice=named, **fields).choices
        (call,) = choice.message.tool_calls
        assert call.function.name == "weather"
        if choice.finish_reason == "tool_calls":
            arguments = json.loads(call.function.arguments)
            assert arguments["city"] in ("Rome", "Oslo")
            assert 1 <= arguments["days"] <= 9
        _, calls, finish = from_stream(ask(client, tool_choice=named, stream=True, **fields))
        assert (calls[0]["arguments"], finish) == (call.function.arguments, choice.finish_reason)
        (choice,) = ask(client, tool_choice="required", **fields).choices
        assert choice.message.content is None
        assert {call.function.name for call in choice.message.tool_calls} <= {"weather", "now"}


def test_no_calls_when_the_choice_is_none(
    client: openai.OpenAI, tool_tokenizer: ChatTokenizer
) -> None:
    with_tools = ask(client, tool_choice="none", max_tokens=10)
    without = client.chat.completions.create(
        model="light", messages=HELLO, max_tokens=10, temperature=0
    )
    assert with_tools.choices[0].message.content == without.choices[0].message.content
    assert with_tools.usage.prompt_tokens == len(tool_tokenizer.chat(HELLO))


def test_calls_and_their_results_are_turns(
    client: openai.OpenAI,
    tool_server: LiveServer,
    tool_tokenizer: ChatTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    say(monkeypatch, tool_server, tool_prompt(tool_tokenizer), CALL)
    message = ask(client).choices[0].message
    monkeypatch.undo()
    (call,) = message.tool_calls
    result = {"role": "tool", "tool_call_id": call.id, "content": "Snow."}
    arguments = {"city": "Oslo", "days": 3}
    template_call = {"function": {"name": "weather", "arguments": arguments}}
    answer = {"role": "assistant", "content": "", "tool_calls": [template_call]}
    turns = [*HELLO, answer, {"role": "tool", "content": "Snow."}]
    text = tool_tokenizer.render(turns, TEMPLATE_TOOLS)
    assert f"<|im_start|>assistant\n{CALL}<|im_end|>" in text
    assert "<tool_response>\nSnow.\n</tool_response>" in text
    for turn in (message, message.model_dump()):
        completion = ask(client, messages=[*HELLO, turn, result], max_tokens=2)
        assert completion.usage.prompt_tokens == len(tool_tokenizer.encode_plain(text))


def test_tools_and_a_schema_together(
    client: openai.OpenAI,
    tool_server: LiveServer,
    tool_tokenizer: ChatTokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    schema = {"type": "object", "properties": {"rain": {"type": "boolean"}}, "required": ["rain"]}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    say(monkeypatch, tool_server, tool_prompt(tool_tokenizer), '{"rain": true}')
    (choice,) = ask(client, response_format=response_format).choices
    assert (choice.message.content, choice.finish_reason) == ('{"rain": true}', "stop")
    say(monkeypatch, tool_server, tool_prompt(tool_tokenizer), CALL)
    (choice,) = ask(client, response_format=response_format).choices
    assert (choice.message.content, choice.finish_reason) == (None, "tool_calls")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools", "same name"),
        ({"tool_choice": {"type": "function", "function": {"name": "sun"}}}, "tool_choice", "sun"),
        ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
        ({"tool_choice": "sometimes"}, "tool_choice", "required"),
        ({"tool_choice": {"type": "allowed_tools"}}, "tool_choice", "required"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]},
         "tools.0.function.name", "pattern"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type", "function"),
        ({"tools": [{"type": "function", "function": {"name": "a", "parameters": {"type": "x"}}}]},
         "tools", "type object"),
        ({"tools": [{"type": "function",
                     "function": {"name": "a", "parameters": {"$ref": "#/missing"}}}]},
         "tools", "cannot be used"),
    ],
    ids=range(9),
)  # fmt: skip
def test_tools_that_cannot_work(
    client: openai.OpenAI, fields: dict[str, Any], param: str, words: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=words) as error_info:
        ask(client, **fields)
    assert error_info.value.param == param


def test_a_template_without_tools(server: LiveServer) -> None:
    with (
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError, match="does not write tools") as error_info,
    ):
        ask(client)
    assert error_info.value.param == "tools"
