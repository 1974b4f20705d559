"""Every body is read or refused, and the server goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client"):
    pytest.importorskip(extra, reason="the extra `serve` is not installed")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from featherweight.serving.bodies import parse  # noqa: E402
from featherweight.serving.errors import ApiError  # noqa: E402
from featherweight.serving.fields import NEUTRAL_VALUES, read  # noqa: E402
from featherweight.serving.messages import to_turns  # noqa: E402
from featherweight.serving.requests import ChatRequest, CompletionRequest  # noqa: E402
from featherweight.serving.responses import ResponsesRequest  # noqa: E402
from featherweight.serving.tools import ToolUse  # noqa: E402

MESSAGES = [{"role": "user", "content": "Hello"}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        *CompletionRequest.model_fields,
        *ChatRequest.model_fields,
        *ResponsesRequest.model_fields,
        *NEUTRAL_VALUES,
    ]
) | st.text(max_size=5)


def status_of(work: Callable[[], object]) -> int:
    try:
        work()
    except ApiError as error:
        return error.status
    return 200


def read_chat(parameters: dict[str, Any]) -> None:
    body = read(ChatRequest, {"model": "light", "messages": MESSAGES, **parameters})
    body.check()
    to_turns(body.messages)
    ToolUse(body.tools, body.tool_choice, body.parallel_tool_calls)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_object_is_read_or_refused(parameters: dict[str, Any]) -> None:
    assert status_of(lambda: read_chat(parameters)) in (200, 400)
    prompt = {"model": "light", "prompt": "a", **parameters}
    assert status_of(lambda: read(CompletionRequest, prompt).check()) in (200, 400)
    question = {"model": "light", "input": "a", **parameters}
    assert status_of(lambda: read(ResponsesRequest, question).check()) in (200, 400)


TURNS = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "tool", "function", "system"])},
    optional={
        name: VALUES | st.text(max_size=3) | st.just([{"function": {"name": "a"}}])
        for name in ("content", "refusal", "tool_calls", "function_call", "tool_call_id", "name")
    },
)


@given(st.lists(TURNS, max_size=3))
def test_any_turns_are_read_or_refused(turns: list[dict[str, Any]]) -> None:
    assert status_of(lambda: read_chat({"messages": turns})) in (200, 400)


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode()) | VALUES.map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    assert status_of(lambda: parse(data)) in (200, 400)
