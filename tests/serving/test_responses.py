"""/v1/responses in its basic form, through the official client: text in, text or events out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer, send  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402
from featherweight.serving.limits import Limits  # noqa: E402

RESPONSES = "/v1/responses"
GREEDY: dict[str, Any] = {"model": "light", "max_output_tokens": 12, "temperature": 0}


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def chat_answer(client: openai.OpenAI, messages: Any) -> str:
    """What /v1/chat/completions answers to the same conversation."""
    completion = client.chat.completions.create(
        model="light", messages=messages, max_tokens=12, temperature=0
    )
    return completion.choices[0].message.content or ""


def test_text_in_and_out(client: openai.OpenAI, tokenizer: ChatTokenizer) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    response = client.responses.create(input="Hello", **GREEDY)
    assert response.object == "response"
    assert response.output_text == chat_answer(client, messages)
    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage is not None
    assert response.usage.input_tokens == len(tokenizer.chat(messages))
    assert response.usage.output_tokens == 12
    assert response.usage.total_tokens == response.usage.input_tokens + 12
    with_system = client.responses.create(input="Hello", instructions="Be kind.", **GREEDY)
    system = {"role": "system", "content": "Be kind."}
    assert with_system.output_text == chat_answer(client, [system, *messages])
    assert with_system.instructions == "Be kind."


def test_a_conversation_with_our_own_items(client: openai.OpenAI) -> None:
    first = client.responses.create(input="Hello", **GREEDY)
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
        *[item.model_dump() for item in first.output],
        {"type": "message", "role": "user", "content": "And then?"},
    ]
    second = client.responses.create(input=items, **GREEDY)  # type: ignore[arg-type]
    messages = [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": first.output_text},
        {"role": "user", "content": "And then?"},
    ]
    assert second.output_text == chat_answer(client, messages)


def test_events(client: openai.OpenAI, server: LiveServer) -> None:
    expected = client.responses.create(input="Hello", **GREEDY)
    events = list(client.responses.create(input="Hello", stream=True, **GREEDY))
    kinds = [event.type for event in events]
    assert kinds[:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert set(kinds[4:-4]) == {"response.output_text.delta"}
    assert kinds[-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == expected.output_text
    final: Any = events[-1]
    assert final.response.output_text == text
    assert final.response.usage.output_tokens == 12
    server.engine.excluded_tokens = tuple(set(range(300)) - {2})
    events = list(client.responses.create(input="Hello", stream=True, **GREEDY))
    assert events[-1].type == "response.completed"
    with client.responses.stream(input="Hello", **GREEDY) as stream:
        assert stream.get_final_response().status == "completed"


def test_text_after_a_schema(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance", reason="the extra `schema` is not installed")
    schema = {
        "type": "object",
        "properties": {"season": {"enum": ["spring", "autumn"]}},
        "required": ["season"],
        "additionalProperties": False,
    }
    text: Any = {"format": {"type": "json_schema", "name": "house", "schema": schema}}
    parameters = GREEDY | {"max_output_tokens": 200, "temperature": 1}
    for seed in range(5):
        response = client.responses.create(
            input="Hello", text=text, extra_body={"seed": seed}, **parameters
        )
        if response.status == "completed":
            assert json.loads(response.output_text)["season"] in ("spring", "autumn")
            break
    else:
        raise AssertionError("no answer came to its end")


@pytest.mark.parametrize(
    "fields",
    [
        {"store": False, "truncation": "disabled", "background": False, "include": []},
        {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True, "max_tool_calls": None},
        {"reasoning": None, "previous_response_id": None, "conversation": None, "prompt": None},
        {"reasoning": {"effort": None}, "text": {"format": {"type": "text"}}},
        {"text": {"verbosity": "medium", "format": None}, "top_logprobs": 0},
        {"metadata": {"run": "7"}, "user": "me", "safety_identifier": "a"},
        {"service_tier": "auto", "prompt_cache_key": "a", "stream": None},
    ],
    ids=range(7),
)
def test_values_that_change_nothing(server: LiveServer, fields: dict[str, Any]) -> None:
    status, answer, _ = send(
        server, RESPONSES, json.dumps(GREEDY | {"input": "Hello"} | fields).encode()
    )
    assert (status, answer["error"]) == (200, None)
    assert answer["metadata"] == fields.get("metadata", {})


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "function_call_output", "output": "a"}]}, "input.0.role"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input.0.content"),
        ({"input": [{"role": "assistant", "content": None}]}, "input.0.content"),
        ({"store": True}, "store"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"reasoning": {"effort": "high"}}, "reasoning"),
        ({"background": True}, "background"),
        ({"truncation": "auto"}, "truncation"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format"),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format"),
    ],
    ids=range(15),
)
def test_values_that_cannot_work(server: LiveServer, fields: dict[str, Any], param: str) -> None:
    body = GREEDY | {"input": "Hello"} | fields
    status, answer, _ = send(server, RESPONSES, json.dumps(body).encode())
    assert (status, answer["error"]["param"]) == (400, param)


def test_errors_in_mid_stream_are_events(start: Callable[..., LiveServer]) -> None:
    server = start(limits=Limits(answer_seconds=0.3), delay=0.005)
    body = GREEDY | {"input": "Hello", "max_output_tokens": 400, "stream": True}
    status, stream, _ = send(server, RESPONSES, json.dumps(body).encode())
    assert status == 200
    name, data = stream.strip().split("\n\n")[-1].split("\n")
    error = json.loads(data.removeprefix("data: "))
    assert (name, error["type"], error["code"]) == ("event: error", "error", "timeout")
    assert "took longer" in error["message"]
