"""Many answers from one engine: each answer is the one that its request would get alone, whatever
happens to the others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import tiny
from busy_engine import BusyEngine

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference.batching.batcher import (
    Batcher,
    BatcherClosed,
    PromptTooLong,
    QueueFull,
    split_evenly,
)
from featherweight.inference.batching.requests import (
    GenerationRequest,
    RequestCancelled,
    StreamEvent,
)
from featherweight.inference.batching.slots import Slot
from featherweight.inference.generation import generate
from featherweight.inference.text.tokenizer import ChatTokenizer

GREEDY = Sampling(max_tokens=12, temperature=0, logprobs=0)
DICE = Sampling(max_tokens=20, temperature=0.9, top_p=0.9, seed=7, logprobs=0)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny.tokenizer().save_pretrained(folder)
    return ChatTokenizer.open(folder)


@pytest.fixture
def engine() -> BusyEngine:
    return BusyEngine()


@pytest.fixture
def batcher(engine: BusyEngine, tokenizer: ChatTokenizer) -> Iterator[Batcher]:
    with Batcher(engine, tokenizer, num_slots=3, queue_limit=50, chunk=8) as batcher:
        yield batcher
    engine.close()


def collect(request: GenerationRequest) -> tuple[str, list[int], str | None]:
    deltas = list(request)
    tokens = [token for delta in deltas for token in delta.tokens]
    return "".join(delta.text for delta in deltas), tokens, deltas[-1].finish


def answer_alone(
    engine: BusyEngine, tokenizer: ChatTokenizer, prompt: list[int], sampling: Sampling
) -> tuple[str, list[int], str | None]:
    """The definition: one answer at a time, on an engine of its own that gives the same logits."""
    single_engine = BusyEngine()
    single_engine.logits = engine.logits  # type: ignore[method-assign]
    deltas = list(generate(single_engine, tokenizer, prompt, sampling))
    return (
        "".join(delta.text for delta in deltas),
        [token for delta in deltas for token in delta.tokens],
        deltas[-1].finish,
    )


def wait_until(condition: object) -> None:
    end = time.monotonic() + 20
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_each_gets_what_it_would_get_alone(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    prompts = [[5 + i, *range(10, 10 + i % 23)] for i in range(30)]
    samplings = [
        replace(DICE if i % 2 else GREEDY, max_tokens=1 + i % 17, seed=i) for i in range(30)
    ]
    samplings[4] = replace(samplings[4], max_tokens=40, stop=("e", "a"))
    requests = [batcher.submit(p, s) for p, s in zip(prompts, samplings, strict=True)]
    for prompt, sampling, request in zip(prompts, samplings, requests, strict=True):
        assert collect(request) == answer_alone(engine, tokenizer, prompt, sampling)
    assert max(count for kind, count in engine.calls if kind == "forward") <= 8
    assert len(engine.sessions) == 3


def test_the_end_of_text_ends_it(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    end = next(iter(tokenizer.end_ids))
    original_logits = engine.logits

    def logits(tokens: list[int]) -> np.ndarray:
        row = original_logits(tokens)
        row[end] = 99 if len(tokens) == 6 else -99
        return row

    engine.logits = logits  # type: ignore[method-assign]
    request = batcher.submit([5, 6, 7, 8], GREEDY)
    _, tokens, finish = collect(request)
    assert (len(tokens), finish, request.num_tokens) == (3, "stop", 3)


def test_a_new_turn_computes_the_new_turn_only(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    first = list(range(10, 40))
    _, tokens, _ = collect(batcher.submit(first, GREEDY))
    collect(batcher.submit([9, 9, 9], GREEDY))
    engine.calls.clear()
    second = [*first, *tokens, 50, 51]
    request = batcher.submit(second, DICE)
    assert collect(request) == answer_alone(engine, tokenizer, second, DICE)
    assert (
        request.cached_tokens == len(first) + len(tokens) - 1
    )  # the last token of an answer is never computed
    assert (
        sum(count for kind, count in engine.calls if kind == "forward")
        == len(second) - request.cached_tokens
    )
    request = batcher.submit(first, DICE)
    assert collect(request) == answer_alone(engine, tokenizer, first, DICE)
    assert request.cached_tokens == len(first) - 1


def test_a_long_prompt_does_not_hold_up_the_others(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.delay = 0.001
    short = batcher.submit([1, 2], replace(GREEDY, max_tokens=200))
    wait_until(lambda: short.num_tokens > 1)
    long = batcher.submit(list(range(3, 200)), GREEDY)
    collect(long)
    short.cancel()
    start = max(i for i, call in enumerate(engine.calls[:-1]) if call == ("forward", 8)) - 20
    kinds = [kind for kind, _ in engine.calls[start : start + 10]]
    assert kinds == ["forward", "step"] * 5 or kinds == ["step", "forward"] * 5


def test_short_prompts_share_a_round(engine: BusyEngine, tokenizer: ChatTokenizer) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.delay = 0.02
    with Batcher(engine, tokenizer, num_slots=9, chunk=8) as batcher:
        requests = [batcher.submit([9 + i, 5], replace(GREEDY, max_tokens=3)) for i in range(9)]
        for request in requests:
            collect(request)
    kinds = "".join(kind[0] for kind, _ in engine.calls)
    # The first may be alone in its round; then four prompts of two tokens go before each step.
    assert "ffffs" in kinds
    assert "fffff" not in kinds


def test_all_advance_at_the_same_pace(engine: BusyEngine, tokenizer: ChatTokenizer) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    with Batcher(engine, tokenizer, num_slots=9) as batcher:
        requests = [batcher.submit([i + 3], replace(GREEDY, max_tokens=400)) for i in range(9)]
        wait_until(lambda: min(request.num_tokens for request in requests) > 20)
        counts = [request.num_tokens for request in requests]
        for request in requests:
            request.cancel()
    assert max(counts) - min(counts) <= 2 + 9  # the nine requests may start one by one
    assert ("step", 3) in engine.calls  # nine by four: three calls of three


def test_one_that_fails_leaves_the_others_alone(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.poison = 299
    good_requests = [batcher.submit([5 + i, 6], replace(DICE, max_tokens=60)) for i in range(2)]
    with pytest.raises(BadInput, match="this one fails"):
        collect(batcher.submit([5, 299, 7], GREEDY))
    for i, request in enumerate(good_requests):
        assert collect(request) == answer_alone(
            engine, tokenizer, [5 + i, 6], replace(DICE, max_tokens=60)
        )
    # The slot of the request that failed serves the next ones.
    requests = [batcher.submit([5, 8 + i], GREEDY) for i in range(3)]
    assert [collect(request) for request in requests] == [
        answer_alone(engine, tokenizer, [5, 8 + i], GREEDY) for i in range(3)
    ]


def test_a_failure_inside_a_shared_step_hits_the_guilty_only(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    poison_mask = np.arange(engine.vocab_size) == 299  # this request can choose the poison only
    engine.poison = 299
    good_requests = [batcher.submit([5 + i, 6], replace(DICE, max_tokens=40)) for i in range(2)]
    bad_request = batcher.submit([7], GREEDY, mask=lambda tokens, logits: poison_mask)
    with pytest.raises(BadInput, match="this one fails"):
        collect(bad_request)
    for i, request in enumerate(good_requests):
        assert collect(request) == answer_alone(
            engine, tokenizer, [5 + i, 6], replace(DICE, max_tokens=40)
        )


def test_a_damaged_model_ends_requests_and_not_the_thread(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.delay = 0.001
    requests = [batcher.submit([5 + i], replace(GREEDY, max_tokens=400)) for i in range(3)]
    wait_until(lambda: all(request.num_tokens for request in requests))
    engine.is_broken = True
    for request in [*requests, batcher.submit([4], GREEDY)]:
        with pytest.raises(BadInput, match="has changed"):
            collect(request)
    engine.is_broken = False
    assert collect(batcher.submit([4], GREEDY)) == answer_alone(engine, tokenizer, [4], GREEDY)


def test_cancelling_frees_the_slot(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.delay = 0.001
    slot_requests = [batcher.submit([5 + i], replace(GREEDY, max_tokens=400)) for i in range(3)]
    queue_request = batcher.submit([4], GREEDY)
    assert next(iter(slot_requests[0])).finish is None
    queue_request.cancel()
    for request in slot_requests:
        request.cancel()
    for request in (*slot_requests, queue_request):
        with pytest.raises(RequestCancelled):
            list(request)
    assert batcher.num_running == batcher.num_waiting == 0
    assert collect(batcher.submit([4], GREEDY)) == answer_alone(engine, tokenizer, [4], GREEDY)


def test_the_queue_has_a_limit(engine: BusyEngine, tokenizer: ChatTokenizer) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    engine.delay = 0.002
    with Batcher(engine, tokenizer, num_slots=1, queue_limit=2) as batcher:
        requests = [batcher.submit([5], replace(GREEDY, max_tokens=300)) for _ in range(3)]
        wait_until(lambda: batcher.num_running == 1)
        with pytest.raises(QueueFull, match="2 requests wait"):
            batcher.submit([5], GREEDY)
    for request in requests:
        with pytest.raises(BatcherClosed):
            list(request)
    with pytest.raises(BatcherClosed):
        batcher.submit([5], GREEDY)
    batcher.close()
    engine.close()


def test_a_reader_that_is_gone_hurts_nobody(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    loop = asyncio.new_event_loop()

    def deliver(event: StreamEvent) -> None:
        loop.call_soon_threadsafe(print, event)

    loop.close()
    request = batcher.submit([5], replace(GREEDY, max_tokens=400), deliver=deliver)
    wait_until(lambda: request.is_cancelled)
    assert collect(batcher.submit([4], GREEDY)) == answer_alone(engine, tokenizer, [4], GREEDY)


@pytest.mark.parametrize(
    ("prompt", "sampling", "error", "words"),
    [
        ([], GREEDY, UsageError, "empty"),
        ([300], GREEDY, UsageError, "vocabulary"),
        ([-1], GREEDY, UsageError, "vocabulary"),
        ([10**30], GREEDY, UsageError, "vocabulary"),
        ([1] * 512, GREEDY, PromptTooLong, "512 of prompt and 12"),
        ([1] * 10_000, GREEDY, PromptTooLong, "shorten"),
        ([1], replace(GREEDY, max_tokens=512), PromptTooLong, "ask for fewer"),
    ],
)
def test_prompts_that_cannot_work(
    batcher: Batcher, prompt: list[int], sampling: Sampling, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        batcher.submit(prompt, sampling)


def test_a_full_context_is_used_to_the_last_token(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    engine.excluded_tokens = tuple(tokenizer.end_ids)
    prompt = [5] * 500
    assert collect(batcher.submit(prompt, GREEDY)) == answer_alone(
        engine, tokenizer, prompt, GREEDY
    )


def test_submitting_from_many_threads(
    engine: BusyEngine, batcher: Batcher, tokenizer: ChatTokenizer
) -> None:
    results: dict[int, object] = {}

    def ask(i: int) -> None:
        results[i] = collect(batcher.submit([5 + i], replace(DICE, seed=i)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {
        i: answer_alone(engine, tokenizer, [5 + i], replace(DICE, seed=i)) for i in range(12)
    }


@pytest.mark.parametrize(
    "sizes",
    [{"num_slots": 0}, {"capacity": -1}, {"capacity": 513}, {"chunk": 0}, {"queue_limit": -1}],
)
def test_impossible_sizes(
    engine: BusyEngine, tokenizer: ChatTokenizer, sizes: dict[str, int]
) -> None:
    with pytest.raises(UsageError):
        Batcher(engine, tokenizer, **sizes)


def test_groups_are_even() -> None:
    slots = [Slot(BusyEngine(), 4) for _ in range(9)]
    assert [len(group) for group in split_evenly(slots, 8)] == [4, 5]
    assert [slot for group in split_evenly(slots, 8) for slot in group] == slots
    assert [len(group) for group in split_evenly(slots[:8], 8)] == [8]
    assert split_evenly([], 8) == []
