"""Many answers from one engine: what each gets is its own, whoever else is served, whatever happens
to the others.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from busy_engine import BusyEngine
from tiny import tokenizer

from featherweight.base.errors import BadInput, UsageError
from featherweight.inference.batching.batcher import (
    Batcher,
    Closed,
    PromptTooLong,
    QueueFull,
    even_groups,
)
from featherweight.inference.batching.requests import Cancelled, Event, GenerationRequest
from featherweight.inference.batching.slots import Slot
from featherweight.inference.generation import generate
from featherweight.inference.sampling import Sampling
from featherweight.inference.text.tokenizer import ChatTokenizer

GREEDY = Sampling(max_tokens=12, temperature=0, logprobs=0)
DICE = Sampling(max_tokens=20, temperature=0.9, top_p=0.9, seed=7, logprobs=0)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> ChatTokenizer:
    folder = tmp_path_factory.mktemp("text")
    tokenizer().save_pretrained(folder)
    return ChatTokenizer.open(folder)


@pytest.fixture
def engine() -> BusyEngine:
    return BusyEngine()


@pytest.fixture
def batcher(engine: BusyEngine, text: ChatTokenizer) -> Iterator[Batcher]:
    with Batcher(engine, text, slots=3, queue_limit=50, chunk=8) as made:
        yield made
    engine.close()


def collect(job: GenerationRequest) -> tuple[str, list[int], str | None]:
    pieces = list(job)
    tokens = [token for piece in pieces for token in piece.tokens]
    return "".join(piece.text for piece in pieces), tokens, pieces[-1].finish


def alone(
    engine: BusyEngine, text: ChatTokenizer, prompt: list[int], sampling: Sampling
) -> tuple[str, list[int], str | None]:
    """The definition: one answer at a time, on an engine of its own that gives the same logits."""
    other = BusyEngine()
    other.logits = engine.logits  # type: ignore[method-assign]
    pieces = list(generate(other, text, prompt, sampling))
    return (
        "".join(piece.text for piece in pieces),
        [t for piece in pieces for t in piece.tokens],
        pieces[-1].finish,
    )


def wait_until(holds: object) -> None:
    end = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.002)


def test_each_gets_what_it_would_get_alone(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    prompts = [[5 + i, *range(10, 10 + i % 23)] for i in range(30)]
    wishes = [replace(DICE if i % 2 else GREEDY, max_tokens=1 + i % 17, seed=i) for i in range(30)]
    wishes[4] = replace(wishes[4], max_tokens=40, stop=("e", "a"))
    jobs = [batcher.submit(p, w) for p, w in zip(prompts, wishes, strict=True)]
    for prompt, wish, job in zip(prompts, wishes, jobs, strict=True):
        assert collect(job) == alone(engine, text, prompt, wish)
    assert max(count for kind, count in engine.calls if kind == "forward") <= 8
    assert len(engine.sessions) == 3


def test_the_end_of_text_ends_it(engine: BusyEngine, batcher: Batcher, text: ChatTokenizer) -> None:
    end = next(iter(text.end_ids))
    normal = engine.logits

    def logits(tokens: list[int]) -> np.ndarray:
        made = normal(tokens)
        made[end] = 99 if len(tokens) == 6 else -99
        return made

    engine.logits = logits  # type: ignore[method-assign]
    job = batcher.submit([5, 6, 7, 8], GREEDY)
    _, tokens, finish = collect(job)
    assert (len(tokens), finish, job.made) == (3, "stop", 3)


def test_a_new_turn_computes_the_new_turn_only(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    first = list(range(10, 40))
    _, tokens, _ = collect(batcher.submit(first, GREEDY))
    collect(batcher.submit([9, 9, 9], GREEDY))
    engine.calls.clear()
    second = [*first, *tokens, 50, 51]
    job = batcher.submit(second, DICE)
    assert collect(job) == alone(engine, text, second, DICE)
    assert job.reused == len(first) + len(tokens) - 1  # the last token of an answer was never fed
    assert (
        sum(count for kind, count in engine.calls if kind == "forward") == len(second) - job.reused
    )
    again = batcher.submit(first, DICE)
    assert collect(again) == alone(engine, text, first, DICE)
    assert again.reused == len(first) - 1


def test_a_long_prompt_does_not_hold_up_the_others(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    engine.delay = 0.001
    short = batcher.submit([1, 2], replace(GREEDY, max_tokens=200))
    wait_until(lambda: short.made > 1)
    long = batcher.submit(list(range(3, 200)), GREEDY)
    collect(long)
    short.cancel()
    start = max(i for i, call in enumerate(engine.calls[:-1]) if call == ("forward", 8)) - 20
    kinds = [kind for kind, _ in engine.calls[start : start + 10]]
    assert kinds == ["forward", "step"] * 5 or kinds == ["step", "forward"] * 5


def test_short_prompts_share_a_round(engine: BusyEngine, text: ChatTokenizer) -> None:
    engine.never = tuple(text.end_ids)
    engine.delay = 0.02
    with Batcher(engine, text, slots=9, chunk=8) as batcher:
        jobs = [batcher.submit([9 + i, 5], replace(GREEDY, max_tokens=3)) for i in range(9)]
        for job in jobs:
            collect(job)
    kinds = "".join(kind[0] for kind, _ in engine.calls)
    # The first may be alone in its round; then four prompts of two tokens go before each step.
    assert "ffffs" in kinds
    assert "fffff" not in kinds


def test_all_advance_at_the_same_pace(engine: BusyEngine, text: ChatTokenizer) -> None:
    engine.never = tuple(text.end_ids)
    with Batcher(engine, text, slots=9) as batcher:
        jobs = [batcher.submit([i + 3], replace(GREEDY, max_tokens=400)) for i in range(9)]
        wait_until(lambda: min(job.made for job in jobs) > 20)
        made = [job.made for job in jobs]
        for job in jobs:
            job.cancel()
    assert max(made) - min(made) <= 2 + 9  # nine may be let in one by one
    assert ("step", 3) in engine.calls  # nine by four: three calls of three


def test_one_that_fails_leaves_the_others_alone(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    engine.poison = 299
    fine = [batcher.submit([5 + i, 6], replace(DICE, max_tokens=60)) for i in range(2)]
    with pytest.raises(BadInput, match="this one fails"):
        collect(batcher.submit([5, 299, 7], GREEDY))
    for i, job in enumerate(fine):
        assert collect(job) == alone(engine, text, [5 + i, 6], replace(DICE, max_tokens=60))
    # The slot of the one that failed serves again.
    jobs = [batcher.submit([5, 8 + i], GREEDY) for i in range(3)]
    assert [collect(job) for job in jobs] == [
        alone(engine, text, [5, 8 + i], GREEDY) for i in range(3)
    ]


def test_a_failure_inside_a_shared_step_hits_the_guilty_only(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    only = np.arange(engine.vocab_size) == 299  # this job can say nothing but the poison
    engine.poison = 299
    fine = [batcher.submit([5 + i, 6], replace(DICE, max_tokens=40)) for i in range(2)]
    bad = batcher.submit([7], GREEDY, mask=lambda tokens, logits: only)
    with pytest.raises(BadInput, match="this one fails"):
        collect(bad)
    for i, job in enumerate(fine):
        assert collect(job) == alone(engine, text, [5 + i, 6], replace(DICE, max_tokens=40))


def test_a_damaged_model_ends_requests_and_not_the_thread(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    engine.delay = 0.001
    jobs = [batcher.submit([5 + i], replace(GREEDY, max_tokens=400)) for i in range(3)]
    wait_until(lambda: all(job.made for job in jobs))
    engine.broken = True
    for job in [*jobs, batcher.submit([4], GREEDY)]:
        with pytest.raises(BadInput, match="has changed"):
            collect(job)
    engine.broken = False
    assert collect(batcher.submit([4], GREEDY)) == alone(engine, text, [4], GREEDY)


def test_cancelling_frees_the_slot(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    engine.delay = 0.001
    running = [batcher.submit([5 + i], replace(GREEDY, max_tokens=400)) for i in range(3)]
    waiting = batcher.submit([4], GREEDY)
    assert next(iter(running[0])).finish is None
    waiting.cancel()
    for job in running:
        job.cancel()
    for job in (*running, waiting):
        with pytest.raises(Cancelled):
            list(job)
    assert batcher.running == batcher.waiting == 0
    assert collect(batcher.submit([4], GREEDY)) == alone(engine, text, [4], GREEDY)


def test_the_queue_has_a_limit(engine: BusyEngine, text: ChatTokenizer) -> None:
    engine.never = tuple(text.end_ids)
    engine.delay = 0.002
    with Batcher(engine, text, slots=1, queue_limit=2) as batcher:
        jobs = [batcher.submit([5], replace(GREEDY, max_tokens=300)) for _ in range(3)]
        wait_until(lambda: batcher.running == 1)
        with pytest.raises(QueueFull, match="2 requests wait"):
            batcher.submit([5], GREEDY)
    for job in jobs:
        with pytest.raises(Closed):
            list(job)
    with pytest.raises(Closed):
        batcher.submit([5], GREEDY)
    batcher.close()
    engine.close()


def test_a_reader_that_is_gone_hurts_nobody(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    loop = asyncio.new_event_loop()

    def deliver(event: Event) -> None:
        loop.call_soon_threadsafe(print, event)

    loop.close()
    lost = batcher.submit([5], replace(GREEDY, max_tokens=400), deliver=deliver)
    wait_until(lambda: lost.cancelled)
    assert collect(batcher.submit([4], GREEDY)) == alone(engine, text, [4], GREEDY)


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
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    engine.never = tuple(text.end_ids)
    prompt = [5] * 500
    assert collect(batcher.submit(prompt, GREEDY)) == alone(engine, text, prompt, GREEDY)


def test_submitting_from_many_threads(
    engine: BusyEngine, batcher: Batcher, text: ChatTokenizer
) -> None:
    results: dict[int, object] = {}

    def ask(i: int) -> None:
        results[i] = collect(batcher.submit([5 + i], replace(DICE, seed=i)))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: alone(engine, text, [5 + i], replace(DICE, seed=i)) for i in range(12)}


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"capacity": -1}, {"capacity": 513}, {"chunk": 0}, {"queue_limit": -1}]
)
def test_impossible_sizes(engine: BusyEngine, text: ChatTokenizer, wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        Batcher(engine, text, **wrong)


def test_groups_are_even() -> None:
    slots = [Slot(BusyEngine(), 4) for _ in range(9)]
    assert [len(group) for group in even_groups(slots, 8)] == [4, 5]
    assert [slot for group in even_groups(slots, 8) for slot in group] == slots
    assert [len(group) for group in even_groups(slots[:8], 8)] == [8]
    assert even_groups([], 8) == []
