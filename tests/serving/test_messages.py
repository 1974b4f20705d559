"""Clients send back what the server gave them, and fields that change nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer, send  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402
from featherweight.serving.fields import read  # noqa: E402
from featherweight.serving.messages import to_turns  # noqa: E402
from featherweight.serving.requests import ChatRequest  # noqa: E402

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO: Any = [{"role": "user", "content": "Hello"}]
NEUTRAL_FIELDS = [
    {"user": "me"},
    {"metadata": {"run": "7"}},
    {"store": False},
    {"top_k": -1},
    {"top_k": 0},
    {"min_p": 0},
    {"repetition_penalty": 1},
    {"tools": []},
    {"tools": [], "tool_choice": "auto", "parallel_tool_calls": True},
    {"tool_choice": "none"},
    {"functions": [], "function_call": "auto"},
    {"parallel_tool_calls": False},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"seed": None},
    {"stop": None},
    {"logit_bias": {}},
    {"logit_bias": {"5": 0}},
    {"presence_penalty": 0, "frequency_penalty": 0.0},
    {"n": 1},
    {"logprobs": False},
    {"modalities": ["text"]},
    {"response_format": {"type": "text"}},
    {"response_format": {"type": "text", "json_schema": None}},
    {"safety_identifier": "a", "prompt_cache_key": "b", "prompt_cache_retention": "24h"},
    {"reasoning_effort": "none", "verbosity": "medium"},
    {"audio": None, "prediction": None, "web_search_options": None, "modalities": None},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {}},
    {"stream_options": None},
    {"stream": None},
    {"max_tokens": 2, "max_completion_tokens": 2},
    {"ignore_eos": False, "skip_special_tokens": True, "min_tokens": 0, "length_penalty": 1.0},
    {"use_beam_search": False, "stop_token_ids": [], "add_generation_prompt": True},
]


@pytest.mark.parametrize("fields", NEUTRAL_FIELDS, ids=lambda fields: "-".join(fields))
def test_values_that_change_nothing(server: LiveServer, fields: dict[str, Any]) -> None:
    body = {"model": "light", "messages": HELLO, "max_tokens": 3, "temperature": 0}
    expected = send(server, CHAT, json.dumps(body).encode())[1]["choices"]
    status, answer, _ = send(server, CHAT, json.dumps(body | fields).encode())
    assert (status, answer.get("error")) == (200, None)
    if "max_tokens" not in fields:
        assert answer["choices"] == expected


def test_null_is_not_given_at_any_depth(server: LiveServer) -> None:
    message = {"role": "user", "content": "Hello", "name": None, "tool_calls": None}
    message |= {"audio": None, "refusal": None, "annotations": None, "function_call": None}
    call = {"id": None, "index": None, "function": {"name": "f", "arguments": None}}
    answer = {"role": "assistant", "content": None, "tool_calls": [call]}
    for name in ("audio", "prediction"):
        with pytest.raises(openai.BadRequestError), openai_client(server) as client:
            client.post(
                "/chat/completions",
                body={"model": "light", "messages": HELLO, name: {}},
                cast_to=object,
            )
    body = read(
        ChatRequest,
        {
            "model": "light",
            "messages": [message, answer, message],
            "stream_options": {"include_usage": None},
            "response_format": {"type": "text", "json_schema": None},
            "tools": [{"type": "function", "function": {"name": "f", "description": None}}],
        },
    )
    assert to_turns(body.messages)[0] == {"role": "user", "content": "Hello"}
    assert to_turns(body.messages)[1]["tool_calls"][0]["function"]["arguments"] == {}
    # A null inside a schema has a meaning of its own.
    schema = {"enum": [None, "a"], "const": None, "properties": {"b": {"default": None}}}
    response_format = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    body = read(
        ChatRequest, {"model": "light", "messages": HELLO, "response_format": response_format}
    )
    assert body.response_format is not None
    assert body.response_format.schema_to_follow() == schema


def openai_client(server: LiveServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def test_our_own_answer_is_a_turn_of_the_next_request(server: LiveServer) -> None:
    with openai_client(server) as client:
        parameters: dict[str, Any] = {"model": "light", "max_tokens": 6, "temperature": 0}
        first = client.chat.completions.create(messages=HELLO, **parameters)
        message = first.choices[0].message
        plain = [*HELLO, {"role": "assistant", "content": message.content}, *HELLO]
        expected = client.chat.completions.create(messages=plain, **parameters)
        for turn in (message, message.model_dump(), message.to_dict()):
            again = client.chat.completions.create(messages=[*HELLO, turn, *HELLO], **parameters)
            assert again.choices[0].message.content == expected.choices[0].message.content
        content = message.content or ""
        parsed = client.chat.completions.parse(messages=HELLO, stop=content[-1], **parameters)
        parsed_message = parsed.choices[0].message
        plain[1] = {"role": "assistant", "content": parsed_message.content}
        expected = client.chat.completions.create(messages=plain, **parameters)
        for turn in (parsed_message, parsed_message.model_dump()):
            again = client.chat.completions.create(messages=[*HELLO, turn, *HELLO], **parameters)
            assert again.choices[0].message.content == expected.choices[0].message.content


@pytest.mark.parametrize(
    ("message", "turn"),
    [
        ({"role": "user", "content": "a", "name": "Ada"}, {"content": "a", "name": "Ada"}),
        ({"role": "user", "content": "a", "type": "text"}, {"content": "a"}),
        ({"role": "assistant", "content": "", "refusal": None}, {"content": ""}),
        ({"role": "assistant", "content": None, "refusal": "No."}, {"content": "No."}),
        ({"role": "assistant", "content": "a", "annotations": []}, {"content": "a"}),
        ({"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
         {"content": "No."}),
        ({"role": "developer", "content": "a"}, {"role": "system", "content": "a"}),
        ({"role": "tool", "content": "21", "tool_call_id": "c1"},
         {"content": "21", "tool_call_id": "c1"}),
        ({"role": "tool", "content": [{"type": "text", "text": "21"}], "tool_call_id": "c1"},
         {"content": "21", "tool_call_id": "c1"}),
        ({"role": "function", "name": "f", "content": "21"},
         {"role": "tool", "name": "f", "content": "21"}),
    ],
    ids=range(10),
)  # fmt: skip
def test_turns_as_templates_read_them(message: dict[str, Any], turn: dict[str, Any]) -> None:
    body = read(ChatRequest, {"model": "light", "messages": [*HELLO, message]})
    assert to_turns(body.messages)[1] == {"role": message["role"]} | turn


@pytest.mark.parametrize(
    "answer",
    [
        {"tool_calls": [{"id": "c1", "type": "function", "index": 0,
                         "function": {"name": "f", "arguments": '{"a": [1, null]}'}}]},
        {"tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": '{"a": [1, null]}',
                                                  "parsed_arguments": {"a": [1, None]}}}]},
        {"content": "", "function_call": {"name": "f", "arguments": '{"a": [1, null]}'}},
    ],
    ids=["index", "parsed", "old"],
)  # fmt: skip
def test_calls_reach_the_template_as_objects(answer: dict[str, Any]) -> None:
    turn = {"role": "assistant"} | answer
    body = read(ChatRequest, {"model": "light", "messages": [*HELLO, turn]})
    (call,) = to_turns(body.messages)[1]["tool_calls"]
    assert call["function"] == {"name": "f", "arguments": {"a": [1, None]}}


@pytest.mark.parametrize("arguments", ["{", "[1]", "5", '"a"'])
def test_arguments_that_are_no_object(server: LiveServer, arguments: str) -> None:
    turn = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
    }
    body = {"model": "light", "messages": [*HELLO, turn]}
    status, answer, _ = send(server, CHAT, json.dumps(body).encode())
    assert status == 400
    assert answer["error"]["param"] == "messages.1.tool_calls.0.function.arguments"


def test_a_template_that_leaves_calls_out(server: LiveServer) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = {"role": "assistant", "content": "a", "tool_calls": [call]}
    body = {"model": "light", "messages": [*HELLO, turn, *HELLO]}
    status, answer, _ = send(server, CHAT, json.dumps(body).encode())
    assert (status, answer["error"]["param"]) == (400, "messages")
    assert "leaves tool_calls out" in answer["error"]["message"]


def test_several_parts_are_one_text(server: LiveServer, tokenizer: ChatTokenizer) -> None:
    parts = [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind.", "annotations": None}]
    body = {"model": "light", "messages": [{"role": "user", "content": parts}], "max_tokens": 1}
    status, answer, _ = send(server, CHAT, json.dumps(body).encode())
    assert status == 200
    turns = [{"role": "user", "content": "Be\nkind."}]
    assert answer["usage"]["prompt_tokens"] == len(tokenizer.chat(turns))
