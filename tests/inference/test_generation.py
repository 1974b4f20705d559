"""The generation loop: deltas, reasons to finish, limits, and a session that stays usable."""

from __future__ import annotations

import pytest
import tiny
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from featherweight.base.errors import UsageError
from featherweight.base.sampling import Sampling
from featherweight.inference import ChatTokenizer, generate

TOKENIZER = ChatTokenizer(tiny.tokenizer().backend_tokenizer.to_str(), {}, (), None)
PROMPT = [50, 60, 70]
GREEDY = Sampling(max_tokens=40, temperature=0)


def with_end_ids(*ids: int) -> ChatTokenizer:
    tokenizer = ChatTokenizer(TOKENIZER.tokenizer_json, {}, (), None)
    tokenizer.end_ids = frozenset(ids)
    return tokenizer


ENDLESS = with_end_ids()


def test_one_delta_a_token_until_max_tokens() -> None:
    engine = FakeEngine()
    generation = generate(engine, ENDLESS, PROMPT, GREEDY)
    assert engine.num_calls == 0, "nothing is computed before it is asked for"
    deltas = list(generation)
    assert [len(delta.tokens) for delta in deltas] == [1] * 40
    assert [delta.finish for delta in deltas] == [None] * 39 + ["length"]
    tokens = [delta.tokens[0] for delta in deltas]
    assert "".join(delta.text for delta in deltas) == TOKENIZER.decode(tokens)
    assert generation.ids == PROMPT + tokens
    assert (
        generation.usage.prompt_tokens,
        generation.usage.completion_tokens,
        generation.usage.cached_tokens,
    ) == (
        3,
        40,
        0,
    )
    assert engine.num_computed == 3 + 39 and engine.num_open_sessions == 0
    new_engine = FakeEngine()
    row = new_engine.forward(new_engine.session(), PROMPT)[0]
    assert tokens[0] == row.argmax()


def test_an_end_token_finishes() -> None:
    tokens = [delta.tokens[0] for delta in generate(FakeEngine(), ENDLESS, PROMPT, GREEDY)]
    end = tokens[6]
    deltas = list(generate(FakeEngine(), with_end_ids(end), PROMPT, GREEDY))
    first = tokens.index(end)
    assert len(deltas) == first + 1
    assert deltas[-1].finish == "stop" and deltas[-1].tokens == (end,)
    assert "".join(delta.text for delta in deltas) == TOKENIZER.decode(tokens[:first])


def test_a_stop_string_finishes() -> None:
    text = TOKENIZER.decode(
        [delta.tokens[0] for delta in generate(FakeEngine(), ENDLESS, PROMPT, GREEDY)]
    )
    stop = text[8:11]
    sampling = Sampling(max_tokens=40, temperature=0, stop=(stop, "no such text"))
    deltas = list(generate(FakeEngine(), ENDLESS, PROMPT, sampling))
    assert deltas[-1].finish == "stop"
    assert "".join(delta.text for delta in deltas) == text[: text.index(stop)]


@given(st.integers(0, 30), st.sampled_from([0.0, 0.8]), st.integers(1, 9), st.integers(1, 60))
def test_lookup_changes_nothing(
    seed: int, temperature: float, lookup: int, max_tokens: int
) -> None:
    sampling = Sampling(
        max_tokens, temperature, top_k=4, repetition_penalty=1.1, seed=seed, logprobs=2
    )
    reference = generate(FakeEngine(seed=seed), with_end_ids(13), PROMPT * 3, sampling)
    engine = FakeEngine(seed=seed)
    session = engine.session()
    generation = generate(
        engine, with_end_ids(13), PROMPT * 3, sampling, lookup=lookup, session=session
    )
    assert list(reference) == list(generation)
    assert reference.ids == generation.ids
    assert session.tokens == generation.ids[: session.length]
    assert session.length < len(generation.ids)


def test_lookup_saves_calls() -> None:
    engine = FakeEngine()
    generation = generate(
        engine, ENDLESS, PROMPT, Sampling(max_tokens=200, temperature=0), lookup=8
    )
    assert len(list(generation)) == 200
    assert engine.num_calls < 100
    assert 0 < generation.usage.accepted_tokens <= generation.usage.draft_tokens


@pytest.mark.parametrize("lookup", [0, 6])
@pytest.mark.parametrize("num_read", [0, 1, 9, 21])
def test_a_session_serves_the_next_turn(num_read: int, lookup: int) -> None:
    """Stop after some deltas; the next prompt continues from there and computes only new tokens."""
    engine = FakeEngine()
    session = engine.session()
    generation = generate(engine, ENDLESS, PROMPT, GREEDY, session=session, lookup=lookup)
    for _ in range(num_read):
        next(generation)
    generation.close()
    session_tokens = generation.ids[: session.length]
    assert session.tokens == session_tokens
    assert session.length == (len(generation.ids) - 1 if num_read else 0)
    prompt = [*generation.ids, 80, 81]
    num_computed = engine.num_computed
    next_generation = generate(engine, ENDLESS, prompt, GREEDY, session=session)
    next(next_generation)
    assert engine.num_computed - num_computed == len(prompt) - len(session_tokens)
    assert next_generation.usage.cached_tokens == len(session_tokens)
    reference = generate(FakeEngine(), ENDLESS, prompt, GREEDY)
    assert [next(reference), *reference][1:] == list(next_generation)


def test_a_prompt_that_is_all_there() -> None:
    engine = FakeEngine()
    session = engine.session()
    engine.forward(session, PROMPT)
    generation = generate(engine, ENDLESS, PROMPT, GREEDY, session=session)
    assert list(generation) == list(generate(FakeEngine(), ENDLESS, PROMPT, GREEDY))
    assert generation.usage.cached_tokens == 2


def test_masks_see_the_answer_so_far() -> None:
    mask_arguments = []

    def mask(tokens, logits):  # type: ignore[no-untyped-def]
        mask_arguments.append(tokens.tolist())
        allowed_tokens = logits > 1e9
        allowed_tokens[100 + len(tokens)] = True
        return allowed_tokens

    tokens = [
        p.tokens[0]
        for p in generate(FakeEngine(), ENDLESS, PROMPT, Sampling(5, seed=1), mask=mask, lookup=3)
    ]
    assert tokens == [100, 101, 102, 103, 104]
    assert mask_arguments == [tokens[:count] for count in range(5)]


@pytest.mark.parametrize(
    ("prompt", "max_tokens", "lookup", "words"),
    [
        ([], 5, 0, "empty"),
        ([5] * 510, 3, 0, "510 tokens.*may have 3.*512.*ask for fewer"),
        ([5] * 10_000, 3, 0, "10000 tokens.*512.*shorten the prompt"),
        ([5], 3, 65, "lookup=65"),
        ([5], 3, -1, "lookup=-1"),
    ],
)
def test_refused_before_any_work(
    prompt: list[int], max_tokens: int, lookup: int, words: str
) -> None:
    engine = FakeEngine()
    with pytest.raises(UsageError, match=words):
        generate(engine, TOKENIZER, prompt, Sampling(max_tokens), lookup=lookup)
    assert engine.num_calls == engine.num_open_sessions == 0


def test_an_error_closes_its_own_session() -> None:
    engine = FakeEngine()
    with pytest.raises(UsageError):
        list(generate(engine, TOKENIZER, [1, 999_999], GREEDY))
    assert engine.num_open_sessions == 0
