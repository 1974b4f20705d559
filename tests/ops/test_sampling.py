"""Sampling draws from the distribution that transformers' logits processors leave."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from processors import transformers_probabilities

from featherweight.base.errors import BadInput
from featherweight.base.sampling import Sampling
from featherweight.ops.sampling import Choice, Sampler, top_indices

VOCAB = 1000


def logits(seed: int, size: int = VOCAB, sharp: float = 2.0) -> Any:
    return (sharp * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.7},
        {"temperature": 1.7, "top_k": 5},
        {"top_k": 1},
        {"top_p": 0.9},
        {"top_p": 0.99, "temperature": 2.0},  # more tokens than the first look
        {"top_p": 1e-9},
        {"min_p": 0.1},
        {"repetition_penalty": 1.3},
        {"temperature": 0.9, "top_k": 50, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 0.8},
    ],
)
def test_the_distribution_is_that_of_transformers(options: dict[str, Any]) -> None:
    sampling = Sampling(seed=0, **options)
    values, prompt = logits(3), [1, 5, 5, 900]
    probabilities = transformers_probabilities(values, sampling, prompt)
    sampler = Sampler(sampling, prompt)
    scores = sampler._adjust(values, None)
    points = (np.arange(4000) + 0.5) / 4000
    tokens = np.array([sampler._draw(scores, float(scores.max()), point) for point in points])
    counts = np.bincount(tokens, minlength=VOCAB) / len(points)
    assert not counts[probabilities == 0].any()
    # Each interval of the cumulated probabilities is hit within one point at either end.
    np.testing.assert_allclose(counts, probabilities, atol=1.01 / 4000)


@given(st.integers(0, 50), st.integers(1, 40))
def test_top_indices(seed: int, count: int) -> None:
    values = np.round(logits(seed, 60))  # with ties
    indices = top_indices(values, count)
    np.testing.assert_array_equal(values[indices], np.sort(values)[::-1][:count])


def test_greedy_takes_the_first_of_the_largest() -> None:
    values = logits(0)
    values[[7, 3]] = 50
    assert Sampler(Sampling(temperature=0)).choose(values) == Choice(3)
    assert Sampler(Sampling(temperature=1e-9, top_p=0.1)).choose(values) == Choice(3)


def test_a_seed_repeats_and_none_does_not() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(Sampling(seed=seed, temperature=5))
        return [sampler.choose(logits(step)).token for step in range(20)]

    assert draw(7) == draw(7) != draw(8)
    assert draw(None) != draw(None)
    assert draw(-1) == draw(-1)


def test_one_number_a_token_whatever_the_distribution() -> None:
    """What the third call gives hangs on its logits, not on those before."""
    a, b = Sampler(Sampling(seed=1)), Sampler(Sampling(seed=1))
    for step in range(2):
        a.choose(logits(step))
        b.choose(logits(step, sharp=100.0), np.arange(VOCAB) == 4)
    assert a.choose(logits(9)) == b.choose(logits(9))


def test_masks() -> None:
    values, mask = logits(1), np.zeros(VOCAB, bool)
    mask[[10, 20]] = True
    copy = values.copy()
    sampler = Sampler(Sampling(seed=0, temperature=9, repetition_penalty=1.1), [10])
    assert {sampler.choose(values, mask).token for _ in range(50)} == {10, 20}
    np.testing.assert_array_equal(values, copy)
    with pytest.raises(BadInput, match="no token is allowed"):
        sampler.choose(values, np.zeros(VOCAB, bool))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite(bad: float, temperature: float) -> None:
    values = logits(1)
    values[3] = bad
    with pytest.raises(BadInput, match="not finite"):
        Sampler(Sampling(temperature=temperature)).choose(values)


def test_penalty_grows_with_the_text() -> None:
    sampler = Sampler(Sampling(temperature=0, repetition_penalty=2.0))
    values = np.array([4.0, 3.0, 1.9, -1.0], np.float32)
    assert [sampler.choose(values).token for _ in range(4)] == [0, 1, 0, 0]
    assert [Sampler(sampler.sampling, [0, 1]).choose(values).token] == [0]


@pytest.mark.parametrize("temperature", [0.0, 0.3])
def test_logprobs_are_the_models_own(temperature: float) -> None:
    values = logits(2)
    logprobs = torch.from_numpy(values).double().log_softmax(-1).numpy()
    sampling = Sampling(
        temperature=temperature, top_k=3, repetition_penalty=1.5, seed=0, logprobs=5
    )
    choice = Sampler(sampling, [int(values.argmax())]).choose(values)
    assert choice.logprob == pytest.approx(logprobs[choice.token], abs=1e-5)
    assert [id for id, _ in choice.top] == np.argsort(-logprobs)[:5].tolist()
    np.testing.assert_allclose(
        [value for _, value in choice.top], np.sort(logprobs)[::-1][:5], atol=1e-5
    )
    choice = Sampler(Sampling(logprobs=0, seed=0)).choose(values)
    assert choice.logprob is not None and choice.top == ()
    assert Sampler(Sampling(seed=0)).choose(values).logprob is None
