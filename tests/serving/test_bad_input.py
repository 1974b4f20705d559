"""Whatever a client sends: a 4xx in OpenAI's shape, and the server goes on serving the others."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(extra, reason="the extra `serve` is not installed")

from live_server import JSON, LiveServer, send, wait_until  # noqa: E402

from featherweight.serving.limits import Limits  # noqa: E402

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "user", "content": "Hello"}]


def refusal(
    server: LiveServer, path: str, body: bytes, **options: Any
) -> tuple[int, dict[str, Any]]:
    """Status and error of a request that must fail, after which another one must work."""
    status, answer, _ = send(server, path, body, **options)
    assert 400 <= status < 500
    assert set(answer) == {"error"} and answer["error"]["message"]
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    good_body = json.dumps({"model": "light", "prompt": "a", "max_tokens": 1}).encode()
    assert send(server, COMPLETIONS, good_body)[0] == 200
    return status, answer["error"]


def chat(**changes: Any) -> bytes:
    return json.dumps({"model": "light", "messages": MESSAGES, "max_tokens": 2} | changes).encode()


def user_turn(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def schema_format(kind: str, schema: Any) -> dict[str, Any]:
    return {"type": kind, "json_schema": {"name": "a", "schema": schema}}


def completion(**changes: Any) -> bytes:
    return json.dumps({"model": "light", "prompt": "Hello", "max_tokens": 2} | changes).encode()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not valid JSON"),
        (b"{", "not valid JSON"),
        (b"nonsense", "not valid JSON"),
        (
            b'{"model": "light", "prompt": "\xff\xfe"}',
            "not valid UTF-8: invalid start byte at byte 30",
        ),
        (b'{"model": "light", "prompt": "\\ud800"}', "lone surrogate"),
        (b'{"model": "\\udfff"}', "lone surrogate"),
        (b'{"temperature": NaN}', "NaN is not JSON"),
        (b'{"temperature": -Infinity}', "-Infinity is not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not valid JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "should be a JSON object"),
        (b'"text"', "should be a JSON object"),
        (b"null", "should be a JSON object"),
        (b"\xef\xbb\xbf{}", "not valid JSON"),
    ],
    ids=range(15),
)
def test_bodies_that_are_no_request(server: LiveServer, body: bytes, words: str) -> None:
    status, error = refusal(server, COMPLETIONS, body)
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert words in error["message"]


@pytest.mark.parametrize(
    ("changes", "param", "code"),
    [
        ({"prompt": ""}, None, "invalid_value"),
        ({"prompt": []}, None, "invalid_value"),
        ({"prompt": "a b " * 1000}, None, "context_length_exceeded"),
        ({"prompt": [5] * 512}, None, "context_length_exceeded"),
        ({"prompt": [5] * 511, "max_tokens": 2}, None, "context_length_exceeded"),
        ({"prompt": [300]}, None, "invalid_value"),
        ({"prompt": [-1]}, None, "invalid_value"),
        ({"prompt": [2**70]}, None, "invalid_value"),
        ({"prompt": [1.0]}, "prompt", "invalid_value"),
        ({"prompt": [True]}, "prompt", "invalid_value"),
        ({"prompt": ["a", [1, "b"]]}, "prompt", "invalid_value"),
        ({"prompt": [[1], 2]}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 1001}, "prompt", "invalid_value"),
        ({"prompt": ["a"] * 60}, "prompt", "invalid_value"),
        ({"prompt": {"text": "a"}}, "prompt", "invalid_value"),
        ({"prompt": None}, "prompt", "missing_required_parameter"),
        ({"model": None}, "model", "missing_required_parameter"),
        ({"model": 3}, "model", "invalid_type"),
        ({"model": ""}, "model", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"max_tokens": -5}, "max_tokens", "invalid_value"),
        ({"max_tokens": 1.5}, "max_tokens", "invalid_type"),
        ({"max_tokens": "7"}, "max_tokens", "invalid_type"),
        ({"max_tokens": True}, "max_tokens", "invalid_type"),
        ({"max_tokens": 10**40}, "max_tokens", "invalid_value"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"temperature": 1e308}, "temperature", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": [1]}, "temperature", "invalid_type"),
        ({"top_p": 0}, "top_p", "invalid_value"),
        ({"top_p": 1.5}, "top_p", "invalid_value"),
        ({"top_k": -3}, "top_k", "invalid_value"),
        ({"min_p": 2}, "min_p", "invalid_value"),
        ({"repetition_penalty": 0}, "repetition_penalty", "invalid_value"),
        ({"seed": 2**64}, "seed", "invalid_value"),
        ({"seed": "a"}, "seed", "invalid_type"),
        ({"stop": ["x"] * 10_000}, "stop", "invalid_value"),
        ({"stop": [""]}, "stop", "invalid_value"),
        ({"stop": "x" * 501}, "stop", "invalid_value"),
        ({"stop": [1]}, "stop", "invalid_value"),
        ({"stop": {"a": 1}}, "stop", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream": 1}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        (
            {"stream": True, "stream_options": {"other": 1}},
            "stream_options.other",
            "unknown_parameter",
        ),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"n": 100}, "n", "invalid_value"),
        ({"best_of": 100}, "best_of", "invalid_value"),
        ({"best_of": 0}, "best_of", "invalid_value"),
        ({"n": 3, "best_of": 2}, "best_of", "invalid_value"),
        ({"best_of": 2, "stream": True}, "best_of", "invalid_value"),
        ({"echo": "yes"}, "echo", "invalid_type"),
        ({"user": 5}, "user", "unsupported_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"metadata": {"a": 1}}, "metadata", "unsupported_parameter"),
        ({"suffix": "end"}, "suffix", "unsupported_parameter"),
        ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
        ({"frequency_penalty": -1}, "frequency_penalty", "unsupported_parameter"),
        ({"presence_penalty": 1}, "presence_penalty", "unsupported_parameter"),
        ({"messages": MESSAGES}, "messages", "unknown_parameter"),
        ({"template": "{{ 1 }}"}, "template", "unknown_parameter"),
        ({"__class__": 1}, "__class__", "unknown_parameter"),
    ],
    ids=range(66),
)
def test_completions_that_cannot_work(
    server: LiveServer, changes: dict[str, Any], param: str, code: str
) -> None:
    status, error = refusal(server, COMPLETIONS, completion(**changes))
    assert (status, error["param"], error["code"]) == (400, param, code)


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": ["Hello"]}, "messages.0"),
        ({"messages": [{}]}, "messages.0.role"),
        ({"messages": [{"role": "user"}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content"),
        ({"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role"),
        ({"messages": [{"role": "assistant", "tool_calls": []}]}, "messages.0.content"),
        (
            {"messages": [user_turn("a") | {"tool_calls": [{"function": {"name": "b"}}]}]},
            "messages.0.tool_calls",
        ),
        ({"messages": [user_turn("a") | {"tool_call_id": "b"}]}, "messages.0.tool_call_id"),
        ({"messages": [user_turn("a") | {"audio": {"id": "b"}}]}, "messages.0.audio"),
        ({"messages": [{"role": 5, "content": "a"}]}, "messages.0.role"),
        ({"messages": [*MESSAGES, user_turn("a") | {"name": 5}]}, "messages.1.name"),
        (
            {"messages": [user_turn([{"type": "image_url", "image_url": "file:///etc"}])]},
            "messages.0.content",
        ),
        ({"messages": [user_turn([{"type": "text", "text": 5}])]}, "messages.0.content"),
        ({"messages": [user_turn("a b " * 1000)]}, None),
        ({"max_tokens": 4, "max_completion_tokens": 5}, "max_tokens"),
        ({"max_tokens": 600}, None),
        ({"logprobs": 2}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"tools": [{"type": "function"}]}, "tools.0.function"),
        ({"response_format": {"type": "grammar"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": schema_format("text", {})}, "response_format"),
        ({"response_format": schema_format("json_schema", {"type": "purple"})}, "response_format"),
        ({"user": 5}, "user"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"echo": True}, "echo"),
        ({"prompt": "Hello"}, "prompt"),
    ],
    ids=range(31),
)
def test_chats_that_cannot_work(server: LiveServer, changes: dict[str, Any], param: str) -> None:
    status, error = refusal(server, CHAT, chat(**changes))
    assert (status, error["param"]) == (400, param)


def test_values_that_ask_for_what_happens_anyway(server: LiveServer) -> None:
    neutral_values = {
        "n": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "tools": [],
        "stop": None,
        "response_format": {"type": "text"},
        "seed": None,
        "top_logprobs": None,
        "user": None,
    }
    assert send(server, CHAT, chat(**neutral_values))[0] == 200
    parts = [
        {
            "role": "developer",
            "content": [{"type": "text", "text": "Be"}, {"type": "text", "text": "kind."}],
        }
    ]
    assert send(server, CHAT, chat(messages=[*parts, *MESSAGES]))[0] == 200


def test_unknown_models_and_places(server: LiveServer) -> None:
    status, error = refusal(server, CHAT, chat(model="../../etc/passwd"))
    assert (status, error["code"], error["param"]) == (404, "model_not_found", "model")
    assert refusal(server, "/v1/embeddings", b"{}")[0] == 404
    assert refusal(server, "/v1/models", b"{}")[0] == 405
    for path in (
        "/page.js/../app.py",
        "/%2e%2e/app.py",
        "/docs",
        "/openapi.json",
        "/page/index.html",
        "//etc/passwd",
    ):
        assert send(server, path)[0] == 404


def test_types_of_bodies(server: LiveServer) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        assert refusal(server, CHAT, chat(), headers={"Content-Type": kind})[0] == 415
    assert (
        send(server, CHAT, chat(), headers={"Content-Type": "Application/JSON; charset=utf-8"})[0]
        == 200
    )


def test_bodies_that_are_too_large(start: Callable[..., LiveServer]) -> None:
    server = start(limits=Limits(body_bytes=1000))
    assert refusal(server, COMPLETIONS, completion(prompt="a" * 1000))[0] == 413
    chunked_headers = JSON | {"Transfer-Encoding": "chunked"}
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (5000, b"a" * 5000)
    assert refusal(server, COMPLETIONS, body, headers=chunked_headers)[0] == 413
    answer = raw(server, b"POST /v1/completions HTTP/1.1\r\nContent-Length: 99999999999\r\n")
    assert b" 413 " in answer.split(b"\r\n")[0]


def test_a_body_that_never_comes(start: Callable[..., LiveServer]) -> None:
    server = start(limits=Limits(body_seconds=0.1))
    late = raw(server, b"POST /v1/completions HTTP/1.1\r\nContent-Length: 50\r\n")
    assert b" 408 " in late.split(b"\r\n")[0]
    assert send(server, COMPLETIONS, completion())[0] == 200


def raw(server: LiveServer, head: bytes) -> bytes:
    """What the server answers to a request of which only the head arrives."""
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head + b"Host: localhost\r\nContent-Type: application/json\r\n\r\n")
        return connection.recv(65536)


def test_limits_on_queue_time_and_tokens(start: Callable[..., LiveServer]) -> None:
    server = start(
        limits=Limits(answer_seconds=0.3, max_tokens=400), slots=1, queue_limit=0, delay=0.005
    )
    status, error = refusal_when_idle(server, completion(max_tokens=401))
    assert (status, error["param"]) == (400, "max_tokens")
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as first:
        body = completion(max_tokens=400)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        head += b"Content-Type: application/json\r\n"
        first.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        wait_until(lambda: server.batcher.num_running == 1)
        status, answer, headers = send(server, COMPLETIONS, completion())
        assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
        assert headers["retry-after"] == "1"
        data = first.recv(65536)
    assert b" 504 " in data.split(b"\r\n")[0]
    wait_until(server.is_idle)
    stream = send(server, COMPLETIONS, completion(max_tokens=400, stream=True))
    assert stream[0] == 200
    events = [line.removeprefix("data: ") for line in stream[1].splitlines() if line]
    assert json.loads(events[-2])["error"]["code"] == "timeout"
    assert events[-1] == "[DONE]"


def refusal_when_idle(server: LiveServer, body: bytes) -> tuple[int, dict[str, Any]]:
    wait_until(server.is_idle)
    status, answer, _ = send(server, COMPLETIONS, body)
    return status, answer["error"]


def test_clients_that_vanish(server: LiveServer) -> None:
    """A client disconnects before the answer begins, in the middle of a stream, or in the middle of
    a body: the slot is free again.
    """
    server.engine.delay = 0.002
    host, port = server.url.removeprefix("http://").split(":")
    for stream in (False, True):
        for read_first in (False, True):
            body = completion(max_tokens=400, stream=stream)
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n")
                connection.sendall(
                    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                    + body
                )
                wait_until(lambda: server.batcher.num_running == 1)
                if read_first and stream:
                    assert connection.recv(100)
            wait_until(server.is_idle)
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{"
        )
    assert send(server, COMPLETIONS, completion())[0] == 200
    figures = send(server, "/metrics")[1]
    assert 'featherweight_requests_total{route="/v1/completions",status="499"}' in figures
    assert 'featherweight_requests_running{model="light"} 0.0' in figures
