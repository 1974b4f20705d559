"""The measures of reasoning length equal examples that were computed by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.evaluation.adaptivity import by_difficulty, hard_easy_ratio, length_slope
from featherweight.evaluation.reasoning_length import (
    accuracy_at_budgets,
    budget_area,
    budget_curve,
    outcome_efficiency,
    overthinking_adjusted_accuracy,
    pass_at_k,
    tokens_after_first_correct,
    tokens_per_correct,
    underthinking_rate,
)

NAN = math.nan
# Four graded answers, and one that is not and must not count anywhere.
CORRECT = [1, 0, 1, 1, NAN]
TOKENS = [10, 20, 40, 2000, 7]
FIRST = [5, 20, 40, 500, 1]


def test_accuracy_at_budgets() -> None:
    accuracies = accuracy_at_budgets(CORRECT, TOKENS, [9, 10, 39, 40, 5000])
    assert accuracies.tolist() == [0, 0.25, 0.25, 0.5, 0.75]
    budgets, curve = budget_curve(CORRECT, TOKENS)
    assert budgets.tolist() == [10, 20, 40, 2000]
    assert curve.tolist() == [0.25, 0.25, 0.5, 0.75]


def test_the_area_is_that_of_the_curve() -> None:
    # From 10 to 1000: 1 over two decades, 1 from 40 on, nothing of the answer of 2000 tokens.
    assert budget_area(CORRECT, TOKENS, 10, 1000) == pytest.approx((2 + math.log10(25)) / 8)
    logs = np.linspace(math.log(10), math.log(1000), 20_001)[1:]
    mean = accuracy_at_budgets(CORRECT, TOKENS, np.exp(logs)).mean()
    assert budget_area(CORRECT, TOKENS, 10, 1000) == pytest.approx(mean, abs=1e-3)
    assert budget_area([1, 1], [1, 3], 10, 100) == 1
    with pytest.raises(UsageError, match="no range"):
        budget_area(CORRECT, TOKENS, 10, 10)


def test_measures_by_hand() -> None:
    expected = (0.99 + 0.96) / 4
    assert overthinking_adjusted_accuracy(CORRECT, TOKENS) == pytest.approx(expected)
    assert outcome_efficiency(CORRECT, FIRST, TOKENS) == pytest.approx((0.5 + 1 + 0.25) / 4)
    assert tokens_after_first_correct(CORRECT, FIRST, TOKENS) == (5 + 0 + 0 + 1500) / 4
    assert tokens_after_first_correct([1, 0], [3, NAN], [5, 5]) == 2
    assert math.isnan(tokens_after_first_correct([0], [NAN], [5]))
    assert underthinking_rate([0, 0, 1], [5, NAN, 2], [20, 9, 9]) == 0.375
    assert underthinking_rate([1], [1], [9]) == 0
    assert tokens_per_correct(CORRECT, TOKENS) == pytest.approx(2070 / 3)
    assert tokens_per_correct([0], [5]) == math.inf


def test_pass_at_k_is_the_share_of_draws_with_a_right_answer() -> None:
    for num_correct in range(6):
        answers = [i < num_correct for i in range(5)]
        for k in (1, 2, 5):
            draws = [any(draw) for draw in combinations(answers, k)]
            assert pass_at_k([5], [num_correct], k) == pytest.approx(np.mean(draws))
    assert pass_at_k([4, 8], [1, 8], 1) == pytest.approx(0.625)
    with pytest.raises(UsageError, match="at least 9 answers"):
        pass_at_k([9, 8], [1, 8], 9)


@pytest.mark.parametrize(
    ("correct", "tokens", "message"),
    [
        ([1, 0], [1], "shapes"),
        ([NAN], [1], "no answer is graded"),
        ([2], [1], "from 0 to 1"),
        ([1], [0], "at least one token"),
    ],
)
def test_what_cannot_be_measured_is_refused(correct, tokens, message) -> None:
    with pytest.raises(BadInput, match=message):
        tokens_per_correct(correct, tokens)


def test_first_places_outside_the_answer_are_refused() -> None:
    with pytest.raises(BadInput, match="within its answer"):
        outcome_efficiency([1], [6], [5])
    with pytest.raises(BadInput, match="first_correct is missing"):
        outcome_efficiency([1], [NAN], [5])


def test_slope_of_right_answers() -> None:
    """Only right answers count: 10 and 14 of difficulty 1, 20 of 2, 31 of 3."""
    correct = [[1, 1], [1, 0], [0, 1], [NAN, 0]]
    tokens = [[10, 14], [20, 900], [900, 31], [900, 900]]
    expected = np.polyfit([1, 1, 2, 3], [10, 14, 20, 31], 1)[0]
    slope = length_slope(correct, tokens, [1, 2, 3, 9], resamples=200)
    assert slope.mean == pytest.approx(expected)
    assert slope.low <= slope.mean <= slope.high
    with pytest.raises(BadInput, match="two difficulties"):
        length_slope([[1], [0]], [[5], [5]], [1, 2])


def test_slope_interval_covers_the_truth() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(100):
        difficulty = rng.integers(1, 11, size=60).astype(float)
        item_effects = rng.normal(0, 5, size=(60, 1))
        tokens = 50 + 4 * difficulty[:, None] + item_effects + rng.normal(0, 3, size=(60, 4))
        correct = (rng.random((60, 4)) < 0.7).astype(float)
        slope = length_slope(correct, tokens, difficulty, resamples=300, seed=trial)
        hits += slope.low <= 4 <= slope.high
    assert 0.88 <= hits / 100 <= 1


def test_hard_easy_ratio_and_table() -> None:
    correct = np.ones((6, 2))
    correct[5, 1] = 0
    tokens = np.array([[10, 12], [8, 10], [0, 0], [0, 0], [40, 40], [40, 999]]) + 0.0
    tokens[2:4] = 20
    difficulty = [1, 1, 2, 2, 3, 3]
    assert hard_easy_ratio(correct, tokens, difficulty, resamples=200).mean == pytest.approx(4)
    table = by_difficulty(correct, tokens, difficulty)
    assert table[3.0] == {"items": 2, "accuracy": 0.75, "tokens_correct": 40}
    assert by_difficulty([[NAN]], [[5]], [1])[1.0]["accuracy"] is None
    with pytest.raises(BadInput, match="both need right answers"):
        hard_easy_ratio(correct, tokens, [1] * 6)
