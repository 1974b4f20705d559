"""Several prompts and several answers in one request, echoes, and log-probabilities of prompts."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

for extra in ("fastapi", "uvicorn", "prometheus_client", "openai"):
    pytest.importorskip(extra, reason="the extras `serve` and `test` are not installed")

import openai  # noqa: E402
from live_server import LiveServer, wait_until  # noqa: E402

from featherweight.inference.text.tokenizer import ChatTokenizer  # noqa: E402

HELLO: Any = [{"role": "user", "content": "Hello, who counts the windows?"}]
PROMPTS = ["The quick brown", "A feather", "In 1905 there were"]


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def greedy(**fields: Any) -> dict[str, Any]:
    return {"model": "light", "max_tokens": 8, "temperature": 0, **fields}


def test_a_list_of_prompts_is_as_many_requests(
    client: openai.OpenAI, tokenizer: ChatTokenizer
) -> None:
    texts = [client.completions.create(prompt=p, **greedy()).choices[0].text for p in PROMPTS]
    together = client.completions.create(prompt=PROMPTS, **greedy())
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.text for choice in together.choices] == texts
    assert together.usage is not None
    num_tokens = sum(len(tokenizer.encode(prompt)) for prompt in PROMPTS)
    assert together.usage.prompt_tokens == num_tokens
    assert together.usage.completion_tokens == 24
    ids = [tokenizer.encode(prompt) for prompt in PROMPTS]
    by_ids = client.completions.create(prompt=ids, **greedy())
    assert [choice.text for choice in by_ids.choices] == texts
    streamed: dict[int, str] = defaultdict(str)
    for chunk in client.completions.create(prompt=PROMPTS, **greedy(), stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.text
    assert [streamed[number] for number in range(3)] == texts


def test_several_answers(client: openai.OpenAI, tokenizer: ChatTokenizer) -> None:
    parameters: dict[str, Any] = {"model": "light", "max_tokens": 8, "seed": 3}
    alone = [
        client.chat.completions.create(messages=HELLO, **parameters | {"seed": seed})
        for seed in (3, 4, 5)
    ]
    texts = [completion.choices[0].message.content for completion in alone]
    assert len(set(texts)) == 3
    together = client.chat.completions.create(messages=HELLO, n=3, **parameters)
    assert [choice.index for choice in together.choices] == [0, 1, 2]
    assert [choice.message.content for choice in together.choices] == texts
    assert together.usage is not None
    assert together.usage.prompt_tokens == len(tokenizer.chat(HELLO))
    assert together.usage.completion_tokens == 24
    streamed: dict[int, str] = defaultdict(str)
    finishes = []
    for chunk in client.chat.completions.create(messages=HELLO, n=3, **parameters, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
            finishes += [choice.finish_reason] if choice.finish_reason else []
    assert [streamed[number] for number in range(3)] == texts
    assert finishes == ["length"] * 3
    two_each = client.completions.create(prompt=PROMPTS, n=2, **parameters)
    assert [choice.index for choice in two_each.choices] == list(range(6))
    second = client.completions.create(prompt=PROMPTS[1], **parameters | {"seed": 4}).choices[0]
    assert two_each.choices[3].text == second.text


def test_the_best_of_several(client: openai.OpenAI) -> None:
    parameters: dict[str, Any] = {"model": "light", "max_tokens": 6, "seed": 3, "prompt": "A dog"}
    tries = client.completions.create(n=4, logprobs=0, **parameters).choices

    def mean_logprob(choice: Any) -> float:
        return float(np.mean(choice.logprobs.token_logprobs))

    ranking = sorted(tries, key=mean_logprob, reverse=True)
    best = client.completions.create(best_of=4, n=2, **parameters)
    assert [choice.text for choice in best.choices] == [choice.text for choice in ranking[:2]]
    assert [choice.index for choice in best.choices] == [0, 1]
    assert all(choice.logprobs is None for choice in best.choices)
    assert best.usage is not None
    assert best.usage.completion_tokens == 24


def test_more_answers_than_the_server_holds(start: Callable[..., LiveServer]) -> None:
    server = start(slots=2, queue_limit=1)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError, match="asks for 4 answers"):
            client.completions.create(prompt=["a"] * 4, **greedy())
        assert len(client.completions.create(prompt=["a"] * 3, **greedy()).choices) == 3
        server.engine.delay = 0.02
        stream = client.completions.create(prompt="a", **greedy(max_tokens=100), stream=True)
        next(iter(stream))
        # Two more would fit, three do not; none of them stays behind.
        with pytest.raises(openai.RateLimitError):
            client.completions.create(prompt=["b"] * 3, **greedy())
        wait_until(lambda: server.batcher.num_running == 1 and server.batcher.num_waiting == 0)
        stream.close()
    wait_until(server.is_idle)


def test_one_answer_that_fails_ends_the_request(client: openai.OpenAI, server: LiveServer) -> None:
    server.engine.poison = 299
    with pytest.raises(openai.InternalServerError):
        client.completions.create(prompt=[[5, 6], [5, 299, 7]], **greedy(max_tokens=100))
    wait_until(server.is_idle)


@pytest.mark.parametrize("max_tokens", [0, 1, 5])
@pytest.mark.parametrize("stream", [False, True])
def test_echo_scores_the_prompt(
    client: openai.OpenAI,
    server: LiveServer,
    tokenizer: ChatTokenizer,
    max_tokens: int,
    stream: bool,
) -> None:
    """The log-probabilities of the prompt are those of the model, whatever the cache holds."""
    prompts = ["The quick brown fox " * 15, "A feather weighs so little \N{HERB}"]
    for _ in range(2):
        result = client.completions.create(
            prompt=prompts,
            echo=True,
            logprobs=2,
            stream=stream,
            **greedy(max_tokens=max_tokens),
        )
        chunks: Any = list(result) if stream else [result]
        for number, prompt in enumerate(prompts):
            choices = [c for chunk in chunks for c in chunk.choices if c.index == number]
            check_echo(choices, prompt, tokenizer.encode(prompt), server, max_tokens)


def check_echo(
    choices: list[Any], prompt: str, ids: list[int], server: LiveServer, max_tokens: int
) -> None:
    text = "".join(choice.text for choice in choices)
    assert text.startswith(prompt)
    assert choices[-1].finish_reason == "length"
    token_logprobs = [v for c in choices for v in c.logprobs.token_logprobs]
    top_logprobs = [v for c in choices for v in c.logprobs.top_logprobs]
    assert len(token_logprobs) == len(top_logprobs) == len(ids) + max_tokens
    assert token_logprobs[0] is top_logprobs[0] is None
    for place in range(1, len(ids)):
        logits = server.engine.logits(ids[:place]).astype(np.float64)
        expected = logits - np.log(np.exp(logits).sum())
        assert token_logprobs[place] == pytest.approx(expected[ids[place]], abs=1e-5)
        assert max(top_logprobs[place].values()) == pytest.approx(expected.max(), abs=1e-5)
        assert len(top_logprobs[place]) in (2, 3)
    if max_tokens == 0:
        assert text == prompt


def test_echo_without_logprobs(client: openai.OpenAI, tokenizer: ChatTokenizer) -> None:
    answer = client.completions.create(prompt="A dog", **greedy()).choices[0].text
    echo = client.completions.create(prompt="A dog", echo=True, **greedy())
    assert echo.choices[0].text == f"A dog{answer}"
    assert echo.choices[0].logprobs is None
    ids = client.completions.create(prompt=tokenizer.encode("A dog"), echo=True, **greedy())
    assert ids.choices[0].text == f"A dog{answer}"
    chunks = client.completions.create(prompt="A dog", echo=True, stream=True, **greedy())
    assert "".join(chunk.choices[0].text for chunk in chunks) == f"A dog{answer}"
    prompt_only = client.completions.create(prompt="A dog", echo=True, **greedy(max_tokens=0))
    assert prompt_only.choices[0].text == "A dog"
    assert prompt_only.usage is not None
    assert prompt_only.usage.completion_tokens == 0
    with pytest.raises(openai.BadRequestError, match="is for echo"):
        client.completions.create(prompt="A dog", **greedy(max_tokens=0))


def test_a_prompt_alone_may_fill_the_context(client: openai.OpenAI) -> None:
    full = [5] * 512
    parameters: dict[str, Any] = {"prompt": full, "echo": True, "logprobs": 0}
    choice = client.completions.create(**parameters, **greedy(max_tokens=0)).choices[0]
    assert choice.logprobs is not None
    assert len(choice.logprobs.token_logprobs or []) == 512
    with pytest.raises(openai.BadRequestError, match="the context holds 512"):
        client.completions.create(**parameters, **greedy(max_tokens=1))


def test_the_end_token_counts(client: openai.OpenAI, server: LiveServer) -> None:
    """Clients cut the prompt's tokens from the list by number, so every token is in it."""
    server.engine.excluded_tokens = tuple(set(range(300)) - {2})
    completion = client.completions.create(prompt="A dog", logprobs=1, echo=True, **greedy())
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert completion.usage is not None
    assert (logprobs.tokens or [])[-1] == "<|im_end|>"
    assert len(logprobs.token_logprobs or []) == completion.usage.total_tokens
    assert completion.choices[0].text == "A dog"


def script(server: LiveServer, ids: list[int], num_prompt_tokens: int) -> Any:
    def logits(tokens: list[int]) -> np.ndarray:
        row = np.zeros(300, np.float32)
        row[ids[min(len(tokens) - num_prompt_tokens, len(ids) - 1)]] = 9
        return row

    return logits


@pytest.mark.parametrize("stream", [False, True])
def test_bytes_of_the_tokens_add_up(
    client: openai.OpenAI,
    server: LiveServer,
    tokenizer: ChatTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    stream: bool,
) -> None:
    text = "fox \N{HERB}\N{VARIATION SELECTOR-16} \N{DOG} é ✓"
    ids = tokenizer.encode(text)
    assert len(ids) > len(text)
    prompt = len(tokenizer.chat(HELLO))
    monkeypatch.setattr(server.engine, "logits", script(server, ids, prompt))
    parameters = greedy(max_tokens=len(ids), messages=HELLO, logprobs=True, top_logprobs=3)
    result: Any = client.chat.completions.create(**parameters, stream=stream)
    choices = [chunk.choices[0] for chunk in (result if stream else [result])]
    entries = [e for c in choices if c.logprobs for e in c.logprobs.content]
    assert b"".join(bytes(entry.bytes) for entry in entries).decode() == text
    assert len(entries) == len(ids)
    for entry in entries:
        assert math.isfinite(entry.logprob)
        assert bytes(entry.top_logprobs[0].bytes) == bytes(entry.bytes)
        assert len({top.token for top in entry.top_logprobs}) == 3


def test_keys_of_top_logprobs_never_collide(
    client: openai.OpenAI, server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All the bytes that are no characters would be written with the same sign."""
    parts = [id for id in range(3, 259) if server.batcher.tokenizer.token_text(id) == "\ufffd"]

    def logits(tokens: list[int]) -> np.ndarray:
        row = np.zeros(300, np.float32)
        row[parts[:5]] = [9, 8, 7, 6, 5]
        return row

    monkeypatch.setattr(server.engine, "logits", logits)
    completion = client.completions.create(prompt="A", logprobs=5, **greedy(max_tokens=1))
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    (top,) = logprobs.top_logprobs or []
    assert len(top) == 5
    assert all(name.startswith("bytes:\\x") for name in top)
    assert (logprobs.tokens or [])[0] == next(iter(top))
