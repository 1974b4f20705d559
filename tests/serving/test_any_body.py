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
from featherweight.serving.requests import ChatRequest, CompletionRequest, read  # noqa: E402

MESSAGES = [{"role": "user", "content": "Hello"}]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [*CompletionRequest.model_fields, *ChatRequest.model_fields, "n", "tools"]
) | st.text(max_size=5)


def status_of(work: Callable[[], object]) -> int:
    try:
        work()
    except ApiError as error:
        return error.status
    return 200


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_object_is_read_or_refused(parameters: dict[str, Any]) -> None:
    assert status_of(
        lambda: read(ChatRequest, {"model": "light", "messages": MESSAGES, **parameters})
    ) in (200, 400)
    assert status_of(
        lambda: read(CompletionRequest, {"model": "light", "prompt": "a", **parameters})
    ) in (
        200,
        400,
    )


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode()) | VALUES.map(
    lambda value: json.dumps(value).encode()))  # fmt: skip
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    assert status_of(lambda: parse(data)) in (200, 400)
