"""Advantages of every scale by hand, and groups in any order."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from featherweight.base.errors import BadInput
from featherweight.reasoning.advantages import STD_FLOOR, RewardControl
from featherweight.reasoning.figures import by_bucket, figures
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import Accuracy, Linear, Sizes
from featherweight.reasoning.short_arc import ShortARC

NAN = float("nan")
# Group 0: three of four right. Group 1: one of two right, and one without a mark.
CORRECT = [1.0, 1.0, 1.0, 0.0, 1.0, 0.0, NAN]
GROUP = [0, 0, 0, 0, 1, 1, 1]
LENGTHS = [10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0]
MARKS = Marks(torch.tensor(CORRECT), torch.tensor(LENGTHS), torch.tensor(GROUP), 100)
CONTROLS = [
    RewardControl(Accuracy(), "none"),
    RewardControl(Accuracy(), "group"),
    RewardControl(Linear(0.01), "group", drop=True),
    RewardControl(Linear(0.01), "batch"),
    ShortARC(governor=None, gate="off", floor=1),
    ShortARC(governor=None, gate="off", floor=1, form="scalar", drop=True),
]


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(
        actual, torch.as_tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


def test_no_scale() -> None:
    one = RewardControl(Accuracy(), "none").advantages(MARKS, {})
    close(one.numbers, [0.25, 0.25, 0.25, -0.75, 0.5, -0.5, 0.0])
    assert one.counts.tolist() == [True] * 6 + [False]
    assert one.facts == {"reward": pytest.approx(4 / 6)}


def test_group_scale() -> None:
    """Sample deviations: sqrt((3/16 + 9/16) / 3) = .5, and sqrt(2/4) = .70711."""
    first, second = 0.5 + STD_FLOOR, 0.5**0.5 + STD_FLOOR
    close(
        RewardControl(Accuracy(), "group").advantages(MARKS, {}).numbers,
        [*[0.25 / first] * 3, -0.75 / first, 0.5 / second, -0.5 / second, 0.0],
    )


def test_batch_scale() -> None:
    """Six graded rewards, four of them 1: the sample deviation is sqrt((4/9 + 8/9) / 5)."""
    deviation = ((4 * (1 / 3) ** 2 + 2 * (2 / 3) ** 2) / 5) ** 0.5 + STD_FLOOR
    plain = torch.tensor([0.25, 0.25, 0.25, -0.75, 0.5, -0.5, 0.0], dtype=torch.float64)
    close(RewardControl(Accuracy(), "batch").advantages(MARKS, {}).numbers, plain / deviation)


def test_a_group_of_right_answers_gets_advantages_of_size_one_under_the_group_scale() -> None:
    """What a length penalty of 1e-3 a token does there: r = .99, .98, .98 and .98."""
    marks = Marks(torch.ones(4), torch.tensor([10.0, 20, 20, 20]), torch.zeros(4).long(), 100)
    one = RewardControl(Linear(1e-3), "group").advantages(marks, {})
    scale = 0.005 + STD_FLOOR
    close(one.numbers, [0.0075 / scale, *[-0.0025 / scale] * 3])


def test_equal_rewards_have_no_advantage() -> None:
    """Also where the mean of equal numbers is another number, as that of three times .1 is."""
    marks = Marks(torch.full((3,), 0.1).double(), torch.ones(3), torch.zeros(3).long(), 100)
    for control in CONTROLS:
        one = control.advantages(marks, {})
        assert not one.numbers.any()
        if getattr(control, "drop", False):
            assert not one.counts.any()


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_group_permutation_invariant(control: Any) -> None:
    """Prompts may be interleaved, and groups be of unequal size."""
    state = control.start(Sizes(2, 1))
    one = control.advantages(MARKS, state)
    for seed in range(5):
        order = torch.randperm(7, generator=torch.Generator().manual_seed(seed))
        other = control.advantages(MARKS.select(order), state)
        close(other.numbers, one.numbers[order])
        assert torch.equal(other.counts, one.counts[order])
        renamed = replace(MARKS, group=torch.tensor(GROUP) * -7 + 3)
        close(control.advantages(renamed, state).numbers, one.numbers)


@pytest.mark.parametrize("control", CONTROLS, ids=repr)
def test_degenerate_groups_finite(control: Any) -> None:
    """All wrong, nothing graded, one answer, no answer."""
    for correct in ([0.0] * 4, [NAN] * 4, [1.0], [1.0, NAN], []):
        count = len(correct)
        marks = Marks(torch.tensor(correct), torch.ones(count), torch.zeros(count).long(), 9)
        one = control.advantages(marks, {})
        assert bool(one.numbers.isfinite().all())
        assert not one.numbers[~marks.has_mark].any() and not one.counts[~marks.has_mark].any()
        figures(marks, one)


def test_ungraded_is_masked() -> None:
    """The other answers have the advantages that they would have without it."""
    graded = MARKS.has_mark
    for control in CONTROLS:
        whole, part = control.advantages(MARKS, {}), control.advantages(MARKS.select(graded), {})
        close(whole.numbers[graded], part.numbers)
        assert float(whole.numbers[-1]) == 0 and not bool(whole.counts[-1])
    report = figures(MARKS, CONTROLS[0].advantages(MARKS, {}))
    assert report["accuracy"] == pytest.approx(4 / 6)
    assert report["ungraded"] == pytest.approx(1 / 7)
    assert (report["length"], report["length_right"], report["length_wrong"]) == (35, 27.5, 50)


def test_eval_is_unshaped() -> None:
    """Accuracy and lengths are those of the answers, whatever control and reward make of them."""
    names = ("accuracy", "length", "length_right", "length_wrong", "cut", "all_right", "all_wrong")
    reports = [figures(MARKS, control.advantages(MARKS, {})) for control in CONTROLS]
    for report in reports[1:]:
        assert [report[name] for name in names] == [reports[0][name] for name in names]
    assert by_bucket(MARKS) == [
        {"bucket": 0, "texts": 6, "accuracy": pytest.approx(4 / 6), "length": 35.0}
    ]


class Broken(Accuracy):
    """Needs the length that the prompt asked for."""

    def rewards(self, group: Marks, state: Any) -> Any:
        return group.correct - 0.1 * (group.budget - group.lengths)


def test_a_reward_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(BadInput, match="Broken.* not finite; does it need"):
        RewardControl(Broken()).advantages(MARKS, {})


def test_shares_of_groups() -> None:
    correct = torch.tensor([1.0, 1.0, 0.0, 0.0, 1.0, 0.0])
    marks = Marks(correct, torch.arange(6.0), torch.tensor([0, 0, 1, 1, 2, 2]), 9)
    report = figures(marks, CONTROLS[0].advantages(marks, {}))
    assert report["all_right"] == report["all_wrong"] == pytest.approx(1 / 3)
    assert report["no_advantage"] == pytest.approx(2 / 3)


def test_controls_do_not_change_a_state() -> None:
    control = ShortARC(governor=Governor(warmup=0))
    state = control.start(Sizes(2, 1))
    copies = {name: tensor.clone() for name, tensor in state.items()}
    control.advantages(MARKS, state)
    control.update(state, MARKS)
    for name, tensor in state.items():
        torch.testing.assert_close(tensor, copies[name], rtol=0, atol=0, equal_nan=True)
