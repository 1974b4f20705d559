"""Batched sampling in torch is the numpy reference: the same mask, the same token for the same
number, and log-probabilities of the distribution that is drawn from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from processors import transformers_probabilities

from featherweight.base.errors import BadInput
from featherweight.base.sampling import Sampling
from featherweight.ops.sampling import Sampler
from featherweight.ops.sampling.batched import draw, penalise, truncate
from featherweight.ops.sampling.reference import _nucleus

ROWS, VOCAB = 16, 1000
OPTIONS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.6},
    {"temperature": 1.7, "top_k": 5},
    {"top_k": 1},
    {"top_p": 0.9},
    {"top_p": 0.99, "temperature": 2.0},
    {"top_p": 1e-9},
    {"min_p": 0.1},
    {"repetition_penalty": 1.3},
    {"temperature": 0.9, "top_k": 50, "top_p": 0.8, "min_p": 0.02, "repetition_penalty": 0.8},
]


def logits(rows: int = ROWS, vocab: int = VOCAB, seed: int = 0) -> Any:
    return (2 * np.random.default_rng(seed).standard_normal((rows, vocab))).astype(np.float32)


def occurrences(prompt: list[int]) -> Any:
    mask = torch.zeros(ROWS, VOCAB, dtype=torch.bool)
    mask[:, prompt] = True
    return mask


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_mask_token_and_logprobs_are_those_of_the_reference(options: dict[str, Any]) -> None:
    sampling, prompt, values = Sampling(**options), [1, 5, 5, 900], logits()
    uniforms = np.random.default_rng(1).random(ROWS)
    tensor, text = torch.from_numpy(values), occurrences(prompt)
    drawn = draw(tensor, sampling, torch.from_numpy(uniforms), text)
    scores = penalise(tensor, sampling.repetition_penalty, text) / sampling.temperature
    mask = truncate(scores, sampling).isfinite().numpy()
    full = scores.double().log_softmax(-1).numpy()
    for row in range(ROWS):
        probabilities = transformers_probabilities(values[row], sampling, prompt)
        np.testing.assert_array_equal(mask[row], probabilities > 0)
        sampler = Sampler(sampling, prompt)
        adjusted = sampler._adjust(values[row], None)
        token = sampler._draw(adjusted, float(adjusted.max()), uniforms[row])
        assert token == int(drawn.tokens[row])
        assert float(drawn.logprobs[row]) == pytest.approx(full[row, token], abs=1e-5)
        log = np.log(probabilities[token])
        assert float(drawn.truncated_logprobs[row]) == pytest.approx(log, abs=1e-5)


def test_of_equal_scores_the_lowest_ids_stay() -> None:
    values = np.round(logits(4, 60))
    tensor = torch.from_numpy(values)
    for top_p in (0.1, 0.5, 0.9, 0.999):
        sampling = Sampling(top_p=top_p)
        mask = truncate(tensor, sampling).isfinite()
        for row in range(4):
            weights = np.exp(values[row] - values[row].max())
            expected = np.zeros(60, bool)
            expected[_nucleus(weights, top_p)] = True
            np.testing.assert_array_equal(mask[row].numpy(), expected)
    assert truncate(tensor, Sampling(top_k=7)).isfinite().sum(-1).tolist() == [7] * 4
    assert truncate(tensor, Sampling(top_k=900)) is tensor


def test_frequencies_are_the_probabilities() -> None:
    """Chi-squared over 20,000 draws of 8 tokens; the 99.9 % point at 7 degrees is 24.3."""
    values, sampling = torch.from_numpy(logits(1, 8)), Sampling(temperature=0.8)
    uniforms = torch.from_numpy(np.random.default_rng(5).random(20_000))
    tokens = draw(values.expand(20_000, 8), sampling, uniforms).tokens
    expected = 20_000 * (values[0].double() / 0.8).softmax(-1)
    counts = torch.bincount(tokens, minlength=8)
    assert float(((counts - expected) ** 2 / expected).sum()) < 24.3


def test_the_ends_of_the_interval_and_greedy() -> None:
    values = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]] * 2)
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert draw(values, Sampling(), ends).tokens.tolist() == [1, 2]
    values = torch.from_numpy(logits())
    values[:, [7, 3]] = 50
    drawn = draw(values, Sampling(temperature=0), ends[:1].expand(ROWS))
    assert drawn.tokens.tolist() == [3] * ROWS
    assert not drawn.truncated_logprobs.any()
    assert float(drawn.logprobs[0]) == pytest.approx(np.log(0.5), abs=1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite(bad: float) -> None:
    values = torch.from_numpy(logits())
    values[3, 3] = bad
    with pytest.raises(BadInput, match="not finite"):
        draw(values, Sampling(), torch.rand(ROWS, dtype=torch.float64))
