"""The bootstrap covers what it says, is deterministic, and pairs what is paired."""

from __future__ import annotations

import math

import numpy as np
import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.statistics import (
    SLAB,
    Interval,
    bootstrap,
    bootstrap_mean,
    paired_difference,
    paired_rate_difference,
    resampled_arm_means,
)


def test_equals_a_loop_that_redraws_the_same_indices():
    v = np.random.default_rng(1).exponential(size=7)
    w = np.arange(1.0, 8.0)
    rng = np.random.default_rng(5)
    means = []
    for row in rng.integers(7, size=(300, 7)):
        means.append(sum(w[i] * v[i] for i in row) / sum(w[i] for i in row))
    found = bootstrap_mean(v, w, resamples=300, seed=5, level=0.9)
    assert found.mean == pytest.approx((w * v).sum() / w.sum())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.05, 0.95])))


def test_interval_covers_the_true_mean_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        found = bootstrap_mean(rng.normal(3.0, 1.0, size=40), resamples=400, seed=trial)
        hits += found.low <= 3.0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99


def test_width_agrees_with_the_standard_error():
    v = np.random.default_rng(2).normal(size=400)
    found = bootstrap_mean(v)
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * v.std() / 20, rel=0.1)


def test_deterministic_under_a_seed_and_across_slabs():
    v = np.random.default_rng(3).normal(size=SLAB // 100)
    assert bootstrap_mean(v, resamples=250) == bootstrap_mean(v, resamples=250)
    assert bootstrap_mean(v[:20], seed=1) != bootstrap_mean(v[:20], seed=2)


def test_paired_interval_sees_what_separate_ones_cannot():
    rng = np.random.default_rng(4)
    hard = rng.exponential(5.0, size=16)
    a, b = hard + 0.1 + 0.01 * rng.normal(size=16), hard
    paired = paired_difference(a, b)
    assert paired.mean == pytest.approx(a.mean() - b.mean())
    assert paired.low > 0.08 and paired.high < 0.12
    one, other = bootstrap_mean(a), bootstrap_mean(b)
    assert one.low < other.high and other.low < one.high


def test_paired_equals_the_difference_of_means_over_shared_indices():
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=9), rng.normal(size=9)
    drawn = np.random.default_rng(0).integers(9, size=(500, 9))
    means = a[drawn].mean(1) - b[drawn].mean(1)
    found = paired_difference(a, b, resamples=500)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_identical_arms_differ_by_exactly_nothing():
    v = np.random.default_rng(7).normal(size=12)
    assert paired_difference(v, v) == Interval(0.0, 0.0, 0.0)


def test_one_value_has_no_interval():
    found = bootstrap_mean([2.0])
    assert found.mean == 2.0 and math.isnan(found.low)
    assert found.as_dict() == {"mean": 2.0, "low": None, "high": None}


def test_map_keeps_the_order():
    assert Interval(0.0, -1.0, 1.0).map(math.exp) == Interval(1.0, math.exp(-1), math.e)


@pytest.mark.parametrize(
    ("values", "weights", "error"),
    [
        ([], None, BadInput),
        ([1.0, math.nan], None, BadInput),
        ([1.0, 2.0], [1.0], BadInput),
        ([1.0], [0.0], BadInput),
    ],
)
def test_what_cannot_be_averaged_is_refused(values, weights, error):
    with pytest.raises(error):
        bootstrap_mean(values, weights)


def test_wrong_level_and_unequal_arms_are_refused():
    with pytest.raises(UsageError, match="level"):
        bootstrap_mean([1.0, 2.0], level=95)
    with pytest.raises(BadInput, match="3 and 2"):
        paired_difference([1, 2, 3], [1, 2])


def rates(both: int, first: int, second: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Pairs of yes and no, by how many have it on both sides, on one, and on none."""
    a = [True] * (both + first) + [False] * (second + neither)
    b = [True] * both + [False] * first + [True] * second + [False] * neither
    return a, b


def test_the_difference_of_two_rates_is_that_of_the_paper():
    """Newcombe 1998, method 10: 36, 12, 2 and 0 pairs give 0.0569 to 0.3404."""
    interval = paired_rate_difference(*rates(36, 12, 2, 0))
    assert interval.mean == pytest.approx(0.2)
    assert (interval.low, interval.high) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    mirror = paired_rate_difference(*reversed(rates(36, 12, 2, 0)))
    assert (mirror.low, mirror.high) == pytest.approx((-interval.high, -interval.low))


@pytest.mark.parametrize("count", [0, 1, 7, 20])
def test_equal_answers_never_differ_in_their_rates(count):
    a = [True] * count + [False] * (20 - count)
    interval = paired_rate_difference(a, a)
    assert interval.mean == 0 and interval.low < 0 < interval.high


def test_the_interval_of_two_rates_covers_as_often_as_it_says():
    rng = np.random.default_rng(7)
    hits = 0
    for _ in range(400):
        common, a_only, b_only = rng.random((3, 60)) < np.array([[0.2], [0.3], [0.1]])
        a, b = common | a_only, common | b_only
        interval = paired_rate_difference(a.tolist(), b.tolist())
        hits += interval.low <= 0.8 * 0.2 <= interval.high
    assert 0.92 <= hits / 400 <= 0.98


def test_rates_that_cannot_be_compared_are_refused():
    with pytest.raises(BadInput, match="same items"):
        paired_rate_difference([True], [])
    with pytest.raises(UsageError, match="level"):
        paired_rate_difference([True], [True], level=1.0)


def test_any_statistic_equals_that_of_the_drawn_items():
    v = np.random.default_rng(8).exponential(size=9)
    found = bootstrap(lambda counts: counts @ v / counts.sum(1), 9, resamples=300, seed=3)
    means = v[np.random.default_rng(3).integers(9, size=(300, 9))].mean(1)
    assert found.mean == pytest.approx(v.mean())
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(means, [0.025, 0.975])))


def test_resamples_without_a_number_are_left_out():
    found = bootstrap(lambda counts: np.where(counts[:, 0] > 0, 1.0, np.nan), 3, resamples=50)
    assert found == Interval(1.0, 1.0, 1.0)


def test_arm_means_without_a_spread_of_seeds_are_those_of_the_items():
    v = np.random.default_rng(9).normal(size=(1, 7, 2))
    (means,) = resampled_arm_means([v], resamples=100, seed=4)
    drawn = np.random.default_rng(4).integers(7, size=(100, 7))
    np.testing.assert_allclose(means, v[0][drawn].mean(1))


def test_the_spread_of_seeds_is_that_of_their_mean():
    """Items without a spread, so that only the seeds differ: the variance is s^2 / S."""
    v = np.array([1.0, 4.0, 6.0])[:, None, None] * np.ones((3, 5, 1))
    (means,) = resampled_arm_means([v], resamples=20_000)
    assert means.mean() == pytest.approx(11 / 3, abs=0.03)
    assert means.var() == pytest.approx(v[:, 0, 0].var(ddof=1) / 3, rel=0.05)
