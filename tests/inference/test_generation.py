"""The loop: pieces, reasons to finish, limits, and a session that stays usable."""

from __future__ import annotations

import pytest
import tiny
from fake_engine import FakeEngine
from hypothesis import given
from hypothesis import strategies as st

from featherweight.base.errors import UsageError
from featherweight.inference import ChatTokenizer, Sampling, generate

TEXT = ChatTokenizer(tiny.tokenizer().backend_tokenizer.to_str(), {}, (), None)
PROMPT = [50, 60, 70]
GREEDY = Sampling(max_tokens=40, temperature=0)


def ending(*ids: int) -> ChatTokenizer:
    text = ChatTokenizer(TEXT.tokenizer_json, {}, (), None)
    text.end_ids = frozenset(ids)
    return text


ENDLESS = ending()


def test_one_piece_a_token_until_max_tokens() -> None:
    engine = FakeEngine()
    run = generate(engine, ENDLESS, PROMPT, GREEDY)
    assert engine.calls == 0, "nothing is computed before it is asked for"
    pieces = list(run)
    assert [len(piece.tokens) for piece in pieces] == [1] * 40
    assert [piece.finish for piece in pieces] == [None] * 39 + ["length"]
    tokens = [piece.tokens[0] for piece in pieces]
    assert "".join(piece.text for piece in pieces) == TEXT.decode(tokens)
    assert run.ids == PROMPT + tokens
    assert (run.usage.prompt_tokens, run.usage.completion_tokens, run.usage.cached_tokens) == (
        3,
        40,
        0,
    )
    assert engine.computed == 3 + 39 and engine.open_sequences == 0
    again = FakeEngine()
    row = again.forward(again.session(), PROMPT)[0]
    assert tokens[0] == row.argmax()


def test_an_end_token_finishes() -> None:
    tokens = [piece.tokens[0] for piece in generate(FakeEngine(), ENDLESS, PROMPT, GREEDY)]
    end = tokens[6]
    pieces = list(generate(FakeEngine(), ending(end), PROMPT, GREEDY))
    first = tokens.index(end)
    assert len(pieces) == first + 1
    assert pieces[-1].finish == "stop" and pieces[-1].tokens == (end,)
    assert "".join(piece.text for piece in pieces) == TEXT.decode(tokens[:first])


def test_a_stop_string_finishes() -> None:
    whole = TEXT.decode(
        [piece.tokens[0] for piece in generate(FakeEngine(), ENDLESS, PROMPT, GREEDY)]
    )
    stop = whole[8:11]
    sampling = Sampling(max_tokens=40, temperature=0, stop=(stop, "no such text"))
    pieces = list(generate(FakeEngine(), ENDLESS, PROMPT, sampling))
    assert pieces[-1].finish == "stop"
    assert "".join(piece.text for piece in pieces) == whole[: whole.index(stop)]


@given(st.integers(0, 30), st.sampled_from([0.0, 0.8]), st.integers(1, 9), st.integers(1, 60))
def test_lookup_changes_nothing(
    seed: int, temperature: float, lookup: int, max_tokens: int
) -> None:
    sampling = Sampling(
        max_tokens, temperature, top_k=4, repetition_penalty=1.1, seed=seed, logprobs=2
    )
    plain = generate(FakeEngine(seed=seed), ending(13), PROMPT * 3, sampling)
    engine = FakeEngine(seed=seed)
    session = engine.session()
    guessed = generate(engine, ending(13), PROMPT * 3, sampling, lookup=lookup, session=session)
    assert list(plain) == list(guessed)
    assert plain.ids == guessed.ids
    assert session.tokens == guessed.ids[: session.length] and session.length < len(guessed.ids)


def test_lookup_saves_calls() -> None:
    engine = FakeEngine()
    run = generate(engine, ENDLESS, PROMPT, Sampling(max_tokens=200, temperature=0), lookup=8)
    assert len(list(run)) == 200
    assert engine.calls < 100
    assert 0 < run.usage.accepted <= run.usage.guessed


@pytest.mark.parametrize("lookup", [0, 6])
@pytest.mark.parametrize("taken", [0, 1, 9, 21])
def test_a_sequence_serves_the_next_turn(taken: int, lookup: int) -> None:
    """Leave after some pieces; the next prompt continues from there and computes only what is new."""
    engine = FakeEngine()
    session = engine.session()
    run = generate(engine, ENDLESS, PROMPT, GREEDY, session=session, lookup=lookup)
    for _ in range(taken):
        next(run)
    run.close()
    held = run.ids[: session.length]
    assert session.tokens == held and session.length == (len(run.ids) - 1 if taken else 0)
    prompt = [*run.ids, 80, 81]
    before = engine.computed
    follow = generate(engine, ENDLESS, prompt, GREEDY, session=session)
    next(follow)
    assert engine.computed - before == len(prompt) - len(held)
    assert follow.usage.cached_tokens == len(held)
    fresh = generate(FakeEngine(), ENDLESS, prompt, GREEDY)
    assert [next(fresh), *fresh][1:] == list(follow)


def test_a_prompt_that_is_all_there() -> None:
    engine = FakeEngine()
    session = engine.session()
    engine.forward(session, PROMPT)
    run = generate(engine, ENDLESS, PROMPT, GREEDY, session=session)
    assert list(run) == list(generate(FakeEngine(), ENDLESS, PROMPT, GREEDY))
    assert run.usage.cached_tokens == 2


def test_masks_see_the_answer_so_far() -> None:
    seen = []

    def mask(tokens, logits):  # type: ignore[no-untyped-def]
        seen.append(tokens.tolist())
        allowed = logits > 1e9
        allowed[100 + len(tokens)] = True
        return allowed

    tokens = [
        p.tokens[0]
        for p in generate(FakeEngine(), ENDLESS, PROMPT, Sampling(5, seed=1), mask=mask, lookup=3)
    ]
    assert tokens == [100, 101, 102, 103, 104]
    assert seen == [tokens[:count] for count in range(5)]


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
        generate(engine, TEXT, prompt, Sampling(max_tokens), lookup=lookup)
    assert engine.calls == engine.open_sequences == 0


def test_an_error_closes_its_own_sequence() -> None:
    engine = FakeEngine()
    with pytest.raises(UsageError):
        list(generate(engine, TEXT, [1, 999_999], GREEDY))
    assert engine.open_sequences == 0
