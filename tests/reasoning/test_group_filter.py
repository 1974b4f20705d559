"""GFPO and DRPO as controls, by hand."""

from __future__ import annotations

import math

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.reasoning.advantages import RewardControl
from featherweight.reasoning.decoupled_rewards import DecoupledRewards
from featherweight.reasoning.group_filter import GroupFilter
from featherweight.reasoning.marks import Marks

NAN = float("nan")


def marks(correct: list[float], lengths: list[float], **fields: torch.Tensor) -> Marks:
    group = torch.zeros(len(correct), dtype=torch.int64)
    return Marks(
        torch.tensor(correct, dtype=torch.float64),
        torch.tensor(lengths, dtype=torch.float64),
        group,
        100,
        **fields,
    )


def test_only_the_shortest_are_compared() -> None:
    """Of lengths 10, 20, 30, 40 the first two, one of them right: (1 - 1/2) / std, std = .7071."""
    numbers = GroupFilter(k=2).advantages(marks([1, 0, 1, 1], [10, 20, 30, 40]), {}).numbers
    half = 0.5 / (math.sqrt(0.5) + 1e-4)
    assert numbers.tolist() == pytest.approx([half, -half, 0, 0])


def test_efficiency_prefers_right_answers() -> None:
    """1/40 and 1/30 are above 0: the right answers stay, and agree."""
    chosen = GroupFilter(k=2, by="efficiency")
    assert chosen.advantages(marks([0, 0, 1, 1], [10, 20, 30, 40]), {}).numbers.tolist() == [0] * 4


def test_a_filter_that_keeps_all_is_grpo() -> None:
    answers = marks([1, 0, NAN, 1], [10, 20, 30, 40])
    expected = RewardControl(scale="group").advantages(answers, {})
    actual = GroupFilter(k=4).advantages(answers, {})
    torch.testing.assert_close(actual.numbers, expected.numbers)
    assert torch.equal(actual.counts, expected.counts)


def test_right_answers_share_one_weight() -> None:
    """exp(9) and exp(8) of 1 - L / 100 over .1, divided by their sum; wrong ones share -1; times
    four answers.
    """
    numbers = DecoupledRewards().advantages(marks([1, 1, 0, 0], [10, 20, 30, 40]), {}).numbers
    first = 4 * math.e / (math.e + 1)
    assert numbers.tolist() == pytest.approx([first, 4 - first, -2, -2])


def test_likely_wrong_answers_are_pushed_harder() -> None:
    answers = marks([1, 0, 0], [9, 9, 9], mean_logprob=torch.tensor([-1.0, -0.5, -2.0]).double())
    numbers = DecoupledRewards(tau=1.0).advantages(answers, {}).numbers
    assert numbers[1] < numbers[2] < 0 and float(numbers.sum()) == pytest.approx(0)


def test_groups_of_one_kind_teach_nothing() -> None:
    assert not DecoupledRewards().advantages(marks([1, 1], [1, 2]), {}).numbers.any()


def test_settings() -> None:
    with pytest.raises(UsageError, match="k=1"):
        GroupFilter(k=1)
    with pytest.raises(UsageError, match="lam=0"):
        DecoupledRewards(lam=0.0)
