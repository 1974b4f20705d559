"""Arms against each other: composites that name their weights, the front, and paired intervals."""

from __future__ import annotations

import time

import numpy as np
import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.evaluation.paired_arms import compare_arms
from featherweight.evaluation.tradeoff import aes, pareto_front, points_on_front


def test_aes_named_and_values() -> None:
    assert aes(60.3, 3520, 56.9, 10177) == {"aes(1,3,5)": pytest.approx(0.833, abs=5e-4)}
    assert aes(0.9, 0, 1.0, 100) == {"aes(1,3,5)": pytest.approx(0.5)}, "collapse can win"
    assert aes(0.9, 50, 1.0, 100, (1, 5, 10)) == {"aes(1,5,10)": pytest.approx(-0.5)}
    assert aes(1.0, 100, 1.0, 100) == {"aes(1,3,5)": 0}
    with pytest.raises(BadInput, match="divides by"):
        aes(0.5, 10, 0.0, 10)
    with pytest.raises(UsageError, match="negative"):
        aes(0.5, 10, 1.0, 10, (1, -3, 5))


def test_pareto_front() -> None:
    accuracy = [0.9, 0.8, 0.9, 0.7, 0.5, 0.8]
    tokens = [100, 50, 120, 60, 10, 50]
    assert pareto_front(accuracy, tokens).tolist() == [True, True, False, False, True, True]
    arms = ["plain", "linear", "plain", "linear", "linear", "ours"]
    expected = {"plain": [0], "linear": [1, 4], "ours": [5]}
    assert points_on_front(arms, accuracy, tokens) == expected


def test_arms_are_compared_by_items() -> None:
    correct = np.array([[[1, 1], [1, 0], [0, 0], [np.nan, np.nan]]])
    tokens = np.array([[[10, 10], [20, 40], [30, 30], [1, 1]]]) + 0.0
    base_correct = np.array([[[1.0], [1.0], [1.0], [1.0]]])
    base_tokens = np.array([[[40.0], [40.0], [40.0], [999.0]]])
    found = compare_arms(correct, tokens, base_correct, base_tokens, resamples=500)
    assert found.accuracy.mean == pytest.approx(-0.5)
    assert found.tokens.mean == pytest.approx(70 / 3 - 40)
    assert found.token_saving.mean == pytest.approx(1 - 70 / 120)
    assert (found.num_items, found.num_ungraded_items) == (3, 1)
    assert found.token_saving.low <= found.token_saving.mean <= found.token_saving.high
    one_item = compare_arms(*(x[:, :1] for x in (correct, tokens, base_correct, base_tokens)))
    assert one_item.accuracy.mean == 0 and np.isnan(one_item.accuracy.low)
    same = compare_arms(correct, tokens, correct, tokens)
    assert same.accuracy.low == same.accuracy.high == 0


def test_pairs_of_items_narrow_the_interval() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.exponential(100, size=(1, 200, 1)) + 1
    ones = np.ones((1, 200, 1))
    found = compare_arms(ones, lengths + 5 + rng.random((1, 200, 1)), ones, lengths)
    assert 5.3 < found.tokens.low < found.tokens.high < 5.7


def test_the_interval_over_seeds_covers_the_truth() -> None:
    """Items are difficult for all, runs differ by their seed, and answers are noisy."""
    rng = np.random.default_rng(0)
    hits, trials = 0, 150
    for trial in range(trials):
        common = rng.normal(0, 20, size=(1, 50, 1))
        arm, base = (
            200 + common + rng.normal(0, 4, (5, 1, 1)) + rng.normal(0, 10, (5, 50, 2))
            for _ in range(2)
        )
        ones = np.ones((5, 50, 2))
        found = compare_arms(ones, arm - 30, ones, base, resamples=400, seed=trial)
        hits += found.tokens.low <= -30 <= found.tokens.high
    assert 0.88 <= hits / trials <= 0.985


def test_equal_seeds_can_be_paired() -> None:
    rng = np.random.default_rng(1)
    common = 100 + rng.normal(0, 20, (3, 1, 1)) + rng.normal(0, 2, (3, 40, 1))
    ones = np.ones_like(common)
    apart = compare_arms(ones, common - 5, ones, common)
    together = compare_arms(ones, common - 5, ones, common, pair_seeds=True)
    assert together.tokens.high - together.tokens.low < 1e-9
    assert apart.tokens.high - apart.tokens.low > 10
    with pytest.raises(UsageError, match="equally many"):
        compare_arms(ones, common, ones[:1], common[:1], pair_seeds=True)


def test_three_seeds_of_six_thousand_items_are_quick() -> None:
    rng = np.random.default_rng(2)
    correct, tokens = rng.random((3, 6000, 1)).round(), rng.random((3, 6000, 1)) + 1
    start = time.perf_counter()
    compare_arms(correct, tokens, correct, tokens + 1)
    assert time.perf_counter() - start < 5


def test_arms_that_cannot_be_compared_are_refused() -> None:
    ones = np.ones((1, 3, 1))
    with pytest.raises(BadInput, match="same items"):
        compare_arms(ones, ones, ones[:, :2], ones[:, :2])
    with pytest.raises(BadInput, match="of the base should be"):
        compare_arms(ones, ones, ones[0], ones[0])
    with pytest.raises(BadInput, match="at least one token"):
        compare_arms(ones, 0 * ones, ones, ones)
