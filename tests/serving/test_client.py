"""The official `openai` client against our server: what works with OpenAI works here."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer, wait_until  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402

HELLO: Any = [{"role": "user", "content": "Hello, who counts the windows?"}]


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["light"]
    model = client.models.retrieve("light")
    assert model.model_extra is not None
    assert model.model_extra["featherweight"]["bits"] == 2.5
    with pytest.raises(openai.NotFoundError, match="this server offers light"):
        client.models.retrieve("owner/dark")


def test_chat(client: openai.OpenAI, tokenizer: ChatTokenizer) -> None:
    parameters: dict[str, Any] = {"model": "light", "messages": HELLO, "max_tokens": 20, "seed": 3}
    completion = client.chat.completions.create(**parameters)
    assert completion.object == "chat.completion"
    choice = completion.choices[0]
    assert choice.finish_reason == "length"
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(tokenizer.chat(HELLO))
    assert completion.usage.completion_tokens == 20
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 20
    same_seed = client.chat.completions.create(**parameters)
    assert same_seed.choices[0].message.content == choice.message.content
    other_seed = client.chat.completions.create(**parameters | {"seed": 4})
    assert other_seed.choices[0].message.content != choice.message.content


def test_chat_in_a_stream_is_the_same_text(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {
        "model": "light",
        "messages": HELLO,
        "max_completion_tokens": 20,
        "seed": 3,
    }
    completion = client.chat.completions.create(**parameters)
    chunks = list(
        client.chat.completions.create(
            **parameters, stream=True, stream_options={"include_usage": True}
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks[:-1])
        == completion.choices[0].message.content
    )
    assert [c.choices[0].finish_reason for c in chunks[:-1] if c.choices[0].finish_reason] == [
        "length"
    ]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert completion.usage is not None
    assert chunks[-1].usage.completion_tokens == completion.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1
    chunks = list(client.chat.completions.create(**parameters, stream=True))
    assert all(chunk.usage is None for chunk in chunks)


def test_stop_strings_and_the_end_of_text(
    client: openai.OpenAI, server: LiveServer, tokenizer: ChatTokenizer
) -> None:
    parameters: dict[str, Any] = {
        "model": "light",
        "messages": HELLO,
        "max_tokens": 60,
        "temperature": 0,
    }
    content = client.chat.completions.create(**parameters).choices[0].message.content or ""
    cut = content[len(content) // 2 : len(content) // 2 + 3]
    choice = client.chat.completions.create(**parameters, stop=[cut, "never there"]).choices[0]
    assert (choice.finish_reason, choice.message.content) == (
        "stop",
        content[: content.index(cut)],
    )
    server.engine.excluded_tokens = tuple(set(range(300)) - tokenizer.end_ids)
    completion = client.chat.completions.create(**parameters, logprobs=True)
    choice = completion.choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", "")
    assert choice.logprobs is not None
    assert choice.logprobs.content == []
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 1


def test_chat_logprobs(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {
        "model": "light",
        "messages": HELLO,
        "max_tokens": 12,
        "temperature": 0,
    }
    completion = client.chat.completions.create(**parameters, logprobs=True, top_logprobs=3)
    assert completion.choices[0].logprobs is not None
    content = completion.choices[0].logprobs.content or []
    assert len(content) == 12
    for entry in content:
        assert entry.logprob == max(top.logprob for top in entry.top_logprobs) <= 0
        assert len(entry.top_logprobs) == 3
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1 + 1e-6
        assert text_of(bytes(entry.bytes or [])) == entry.token
    chunks = list(
        client.chat.completions.create(**parameters, logprobs=True, top_logprobs=3, stream=True)
    )
    entries = [
        e for c in chunks for e in ((c.choices[0].logprobs and c.choices[0].logprobs.content) or [])
    ]
    assert entries == content


def text_of(content: bytes) -> str:
    """The text of a token, or its bytes when they are no text."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in content)


def test_answers_after_a_schema(client: openai.OpenAI) -> None:
    pytest.importorskip("llguidance", reason="the extra `schema` is not installed")
    parameters: dict[str, Any] = {"model": "light", "messages": HELLO, "max_tokens": 200, "seed": 2}
    schema = {
        "type": "object",
        "properties": {
            "season": {"enum": ["spring", "autumn"]},
            "windows": {"type": "integer", "maximum": 99},
        },
        "required": ["season", "windows"],
        "additionalProperties": False,
    }
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "house", "schema": schema, "strict": True},
    }
    choice = client.chat.completions.create(**parameters, response_format=form).choices[0]
    assert choice.finish_reason == "stop"
    value = json.loads(choice.message.content or "")
    assert value["season"] in ("spring", "autumn")
    assert value["windows"] <= 99
    stream = client.chat.completions.create(**parameters, response_format=form, stream=True)
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in stream) == choice.message.content
    )


def test_completions(client: openai.OpenAI, tokenizer: ChatTokenizer) -> None:
    parameters: dict[str, Any] = {
        "model": "light",
        "max_tokens": 16,
        "temperature": 0.8,
        "top_p": 0.9,
        "seed": 5,
    }
    completion = client.completions.create(prompt="The quick brown", **parameters)
    assert completion.object == "text_completion"
    assert completion.usage is not None
    assert completion.usage.prompt_tokens == len(tokenizer.encode("The quick brown"))
    ids = tokenizer.encode("The quick brown")
    for prompt in (ids, [ids], ["The quick brown"]):
        assert (
            client.completions.create(prompt=prompt, **parameters).choices[0].text
            == completion.choices[0].text
        )
    chunks = client.completions.create(prompt="The quick brown", **parameters, stream=True)
    assert "".join(chunk.choices[0].text for chunk in chunks) == completion.choices[0].text
    with_extras = client.completions.create(
        prompt="The quick",
        **parameters,
        extra_body={"top_k": 1, "min_p": 0.1, "repetition_penalty": 1.0},
    )
    greedy = client.completions.create(prompt="The quick", **parameters | {"temperature": 0})
    assert with_extras.choices[0].text == greedy.choices[0].text


def test_completion_logprobs(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {
        "model": "light",
        "max_tokens": 8,
        "temperature": 0,
        "prompt": "The dog",
    }
    logprobs = client.completions.create(**parameters, logprobs=2).choices[0].logprobs
    assert logprobs is not None
    assert (
        len(logprobs.tokens or [])
        == len(logprobs.token_logprobs or [])
        == len(logprobs.text_offset or [])
        == 8
    )
    for token, logprob, top in zip(
        logprobs.tokens or [],
        logprobs.token_logprobs or [],
        logprobs.top_logprobs or [],
        strict=True,
    ):
        assert top[token] == logprob == max(top.values())
    chunks = list(client.completions.create(**parameters, logprobs=2, stream=True))
    entries = [chunk.choices[0].logprobs for chunk in chunks]
    assert [token for e in entries if e for token in e.tokens or []] == logprobs.tokens
    offsets = [offset for e in entries if e for offset in e.text_offset or []]
    assert offsets == logprobs.text_offset


def test_a_conversation_reuses_its_beginning(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {"model": "light", "max_tokens": 4}
    client.chat.completions.create(messages=HELLO, **parameters)
    second = [
        *HELLO,
        {"role": "assistant", "content": "Nobody."},
        {"role": "user", "content": "Why?"},
    ]
    usage = client.chat.completions.create(messages=second, **parameters).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 10


@pytest.mark.parametrize(
    ("parameters", "error", "param", "words"),
    [
        ({"model": "dark"}, openai.NotFoundError, "model", "offers light"),
        ({"temperature": 3}, openai.BadRequestError, "temperature", "less than or equal"),
        ({"n": 129}, openai.BadRequestError, "n", "less than or equal"),
        ({"presence_penalty": 0.5}, openai.BadRequestError, "presence_penalty", "not implemented"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop", "at most 4"),
        ({"max_tokens": 100_000}, openai.BadRequestError, None, "the context holds 512"),
    ],
)
def test_errors_arrive_as_the_clients_own(
    client: openai.OpenAI,
    parameters: dict[str, Any],
    error: type[openai.APIStatusError],
    param: str | None,
    words: str,
) -> None:
    defaults: dict[str, Any] = {
        "model": "light",
        "messages": HELLO,
        "max_tokens": 4,
        "n": 1,
        "presence_penalty": 0,
    }
    with pytest.raises(error, match=words) as error_info:
        client.chat.completions.create(**defaults | parameters)
    assert error_info.value.param == param  # type: ignore[attr-defined]


def test_a_model_damaged_in_mid_answer(client: openai.OpenAI, server: LiveServer) -> None:
    """A model file changes after it was loaded: each request gets an error in its own form, and the
    server goes on.
    """
    server.engine.delay = 0.002
    parameters: dict[str, Any] = {"model": "light", "messages": HELLO, "max_tokens": 400}
    stream = client.chat.completions.create(**parameters, stream=True)
    next(iter(stream))
    server.engine.is_broken = True
    with pytest.raises(openai.APIError, match="the model failed at this answer"):
        list(stream)
    with pytest.raises(openai.InternalServerError, match="the model failed at this answer"):
        client.chat.completions.create(**parameters)
    server.engine.is_broken = False
    parameters["max_tokens"] = 4
    assert client.chat.completions.create(**parameters).choices[0].message.content


def test_one_that_fails_leaves_the_others_alone(client: openai.OpenAI, server: LiveServer) -> None:
    server.engine.poison = 299
    server.engine.delay = 0.002
    parameters: dict[str, Any] = {"model": "light", "max_tokens": 100, "seed": 1}
    stream = client.completions.create(prompt=[5, 6, 7], stream=True, **parameters)
    first = next(iter(stream)).choices[0].text
    with pytest.raises(openai.InternalServerError):
        client.completions.create(prompt=[5, 299, 7], **parameters)
    text = first + "".join(chunk.choices[0].text for chunk in stream)
    assert text == client.completions.create(prompt=[5, 6, 7], **parameters).choices[0].text


def test_leaving_a_stream_frees_the_slot(client: openai.OpenAI, server: LiveServer) -> None:
    server.engine.delay = 0.002
    parameters: dict[str, Any] = {"model": "light", "messages": HELLO, "max_tokens": 450}
    stream = client.chat.completions.create(**parameters, stream=True)
    next(iter(stream))
    assert server.batcher.num_running == 1
    stream.close()
    wait_until(server.is_idle)
    with pytest.raises(openai.APITimeoutError):
        client.with_options(timeout=0.1).chat.completions.create(**parameters)
    wait_until(server.is_idle)


def test_shutting_down_in_mid_answer(start: Callable[..., LiveServer]) -> None:
    """Answers in progress get a moment; then their connections are closed and every session too."""
    server = start(delay=0.01)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        stream = client.chat.completions.create(
            model="light", messages=HELLO, max_tokens=450, stream=True
        )
        next(iter(stream))
        server.stop()
        with contextlib.suppress(
            Exception
        ):  # in mid-body the client raises what its transport does
            list(stream)
        with pytest.raises(openai.APIConnectionError):
            client.models.list()


def test_api_key(start: Callable[..., LiveServer]) -> None:
    server = start(api_key="feather-123")
    for key in ("feather-12", "Feather-123", "feather-1234"):
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client,
            pytest.raises(openai.AuthenticationError) as error_info,
        ):
            client.models.list()
        assert error_info.value.code == "invalid_api_key"
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="feather-123", max_retries=0) as client:
        completion = client.chat.completions.create(model="light", messages=HELLO, max_tokens=3)
    assert completion.choices[0].message.content
