"""The controller: its five steps by hand, and what must hold for every group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from featherweight.base.errors import UsageError
from featherweight.reasoning.advantages import RewardControl
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import Accuracy, Sizes
from featherweight.reasoning.short_arc import ShortARC

# Full pressure, a target at the median without slack.
FIXED = ShortARC(governor=None, floor=1, slack=0.0, late_quantile=0.5)
NUM_RIGHT = st.integers(0, 8)


def marks(correct: Any, lengths: Any, group: Any = None, **columns: Any) -> Marks:
    count = len(correct)
    return Marks(
        torch.tensor(correct, dtype=torch.float64),
        torch.tensor(lengths, dtype=torch.float64),
        torch.tensor([0] * count if group is None else group),
        1000,
        **columns,
    )


def advantages(control: ShortARC, given_marks: Marks) -> Tensor:
    state = control.start(Sizes(1, 1 + int(given_marks.bucket.max())))
    return control.advantages(given_marks, state).numbers


def close(actual: Tensor, expected: list[float]) -> None:
    torch.testing.assert_close(
        actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-12
    )


@st.composite
def groups(draw: Any) -> Marks:
    """A group of eight, with at least one right answer."""
    num_right = draw(st.integers(1, 8))
    lengths = draw(st.lists(st.integers(1, 999), min_size=8, max_size=8))
    return marks([1.0] * num_right + [0.0] * (8 - num_right), lengths)


def test_gate() -> None:
    """p = 3/4 between .5 and 1: w = (.75 - .5) / .5 = .5. Right lengths 10, 20, 40 have the median
    20; s = 0, 0, -min(1, 20 / 20) = -1 with mean -1/3. A_accuracy = 1/4 for right, -3/4 for wrong.
    """
    control = replace(FIXED, kappa=0.0)
    close(
        advantages(control, marks([1, 1, 1, 0], [10, 20, 40, 5])),
        [0.25 + 0.5 / 3, 0.25 + 0.5 / 3, 0.0, -0.75],
    )
    one = control.advantages(marks([1, 1, 1, 0], [10, 20, 40, 5]), {})
    assert one.facts == {"pressure": 1.0, "gate": 0.5, "clamped": pytest.approx(1 / 3)}
    # p = 1/2: the gate is closed.
    close(advantages(control, marks([1, 1, 0, 0], [10, 90, 5, 5])), [0.5, 0.5, -0.5, -0.5])
    # Without a gate w = 1: s = 0, -(90 - 50) / 50 = -.8, so A_length = .4 and -.4.
    ungated = replace(control, gate="off")
    close(advantages(ungated, marks([1, 1, 0, 0], [10, 90, 5, 5])), [0.9, 0.1, -0.5, -0.5])


def test_gate_of_the_bucket() -> None:
    """The smoothed accuracy .9 of the bucket: w = .8; s = 0, -.8; A_length = .8 * .4."""
    control = replace(FIXED, gate="bucket", kappa=0.0)
    state = control.start(Sizes(1, 2)) | {"accuracy": torch.tensor([0.5, 0.9], dtype=torch.float64)}
    group = marks([1, 1, 0, 0], [10, 90, 5, 5], bucket=torch.ones(4, dtype=torch.int64))
    close(control.advantages(group, state).numbers, [0.82, 0.18, -0.5, -0.5])
    # A bucket without accuracy yet: that of the group, 1/2.
    unseen = control.advantages(group, control.start(Sizes(1, 2)))
    close(unseen.numbers, [0.5, 0.5, -0.5, -0.5])


def test_target() -> None:
    """Right lengths 10, 20, 30, 50: the median is 25, with 20 % slack tau = 30; s of 50 is -2/3.
    At the late quantile .25 it is 10 + .75 * 10 = 17.5, tau = 21: s = 0, 0, -9/21, -1.
    """
    control = ShortARC(governor=None, floor=1, slack=0.2, late_steps=10)
    lengths = [10, 20, 30, 50]
    mean = -(2 / 3) / 4
    close(advantages(control, marks([1] * 4, lengths)), [-mean] * 3 + [-2 / 3 - mean])
    mean = -(9 / 21 + 1) / 4
    late = marks([1] * 4, lengths, step=10)
    close(advantages(control, late), [-mean, -mean, -9 / 21 - mean, -1 - mean])
    # Half way the quantile is .375: 10 + 1.125 * 10 = 21.25, tau = 25.5.
    mean = -(4.5 / 25.5 + 24.5 / 25.5) / 4
    half = marks([1] * 4, lengths, step=5)
    close(
        advantages(control, half),
        [-mean, -mean, -4.5 / 25.5 - mean, -24.5 / 25.5 - mean],
    )
    # All lengths are below the floor: nothing is left to save.
    close(advantages(replace(control, floor=60), marks([1] * 4, lengths)), [0.0] * 4)


def test_score() -> None:
    """A cap of .5, and one right answer only: no pressure."""
    control = replace(FIXED, cap=0.5, gate="off")
    close(advantages(control, marks([1, 1, 1], [10, 10, 90])), [0.5 / 3, 0.5 / 3, -1 / 3])
    close(advantages(control, marks([1, 0], [90, 10])), [0.5, -0.5])


def test_scalar_form() -> None:
    """lambda is .3 at most. Ungated: s = 0, 0, -1 and 0 for the wrong answer; r = 1, 1, .7, 0 with
    mean .675.
    """
    control = replace(FIXED, form="scalar", gate="off")
    group = marks([1, 1, 1, 0], [10, 20, 40, 5])
    close(advantages(control, group), [0.325, 0.325, 0.025, -0.675])


def test_decoupled_form() -> None:
    """Ungated: s = 0, 0, -1; A_length = 1/3, 1/3, -2/3. 1/4 - 2/3 < kappa / 4: the floor holds."""
    control = replace(FIXED, gate="off", kappa=0.2)
    group = marks([1, 1, 1, 0], [10, 20, 40, 5])
    close(advantages(control, group), [1 / 4 + 1 / 3, 1 / 4 + 1 / 3, 0.05, -0.75])
    # With the deviation of the batch, .5, A_accuracy = .5 and -1.5.
    scaled = replace(control, batch_std=True)
    close(advantages(scaled, group), [0.5 + 1 / 3, 0.5 + 1 / 3, 0.1, -1.5])


@given(groups())
def test_short_arc_off_is_dr_grpo(group: Marks) -> None:
    """Bit for bit, at lambda = 0 and at w = 0."""
    plain = RewardControl(Accuracy(), "none").advantages(group, {}).numbers
    for control in (
        ShortARC(),  # the governor starts at lambda = 0
        replace(FIXED, fixed_pressure=0.0),
        replace(FIXED, form="scalar", fixed_pressure=0.0),
    ):
        assert torch.equal(advantages(control, group), plain)
    if float(group.correct.mean()) <= 0.5:
        assert torch.equal(advantages(FIXED, group), plain)


def test_off_is_dr_grpo_for_partial_scores() -> None:
    group = marks([0.2, 1.0, 0.9, 0.0], [10, 20, 30, 40])
    plain = RewardControl(Accuracy(), "none").advantages(group, {}).numbers
    assert plain[0] < 0
    assert torch.equal(advantages(ShortARC(), group), plain)


@given(groups(), st.floats(0, 50))
def test_no_correct_row_negative(group: Marks, pressure: float) -> None:
    control = replace(FIXED, gate="off", fixed_pressure=pressure, kappa=0.15)
    numbers, plain = advantages(control, group), advantages(ShortARC(), group)
    right = group.correct > 0
    if not bool(right.all()):
        assert bool((numbers[right] >= 0.15 * plain[right]).all())
        assert bool((numbers[right] > 0).all())


@given(groups(), st.floats(0, 50))
def test_wrong_rows_unchanged(group: Marks, pressure: float) -> None:
    control = replace(FIXED, gate="off", fixed_pressure=pressure)
    numbers, plain = advantages(control, group), advantages(ShortARC(), group)
    assert torch.equal(numbers[group.correct == 0], plain[group.correct == 0])


@given(groups(), st.integers(2, 9))
def test_length_advantage_properties(group: Marks, factor: int) -> None:
    """Before the floor: sums to 0 over right answers, falls with the length, is 0 when all lengths
    are within the target, and is the same when lengths and floor are multiplied.
    """
    control = ShortARC(governor=None, gate="off", floor=40, kappa=0.0)
    right = group.correct > 0
    if not bool(right.all()):
        # A group of right answers has no floor.
        group = group.select(right)
    numbers = advantages(control, group)
    assert abs(float(numbers.sum())) < 1e-9
    order = group.lengths.argsort()
    assert bool((numbers[order].diff() <= 1e-12).all())
    if bool((group.lengths <= 40).all()):
        assert not numbers.any()
    larger = replace(group, lengths=factor * group.lengths)
    torch.testing.assert_close(
        advantages(replace(control, floor=40 * factor), larger), numbers, rtol=0, atol=1e-9
    )


@given(groups(), st.floats(0, 50), st.floats(0.01, 1))
def test_bounded_reward(group: Marks, pressure: float, cap: float) -> None:
    """A right answer gets at least .7 and a wrong one 0, so they are at least .7 apart."""
    control = replace(FIXED, form="scalar", gate="off", fixed_pressure=pressure, cap=cap)
    numbers, right = advantages(control, group), group.correct > 0
    if not bool(right.all()):
        reward = numbers - numbers[~right][0]
        assert bool((reward[right] >= 0.7 - 1e-12).all())
        assert bool((reward[right] <= 1 + 1e-12).all())


def test_a_scalar_cap_that_breaks_the_bound_is_refused() -> None:
    with pytest.raises(UsageError, match="cap=4 is at most 1"):
        ShortARC(form="scalar", cap=4)
    with pytest.raises(UsageError, match="fixed_pressure=-1"):
        ShortARC(governor=None, fixed_pressure=-1.0)


@given(groups(), st.floats(0, 0.3))
def test_scalar_minus_decoupled(group: Marks, pressure: float) -> None:
    """Without the floor: lambda w m (1 - p) on right answers and -lambda w m p on wrong ones, with
    m the mean of s over right answers.
    """
    decoupled = replace(FIXED, gate="off", fixed_pressure=pressure)
    scalar = replace(decoupled, form="scalar")
    right = group.correct > 0
    c = right.double()
    p, lengths = c.mean(), group.lengths[right]
    tau = lengths.quantile(0.5)
    score = torch.zeros_like(c)
    if len(lengths) > 1:
        score[right] = -((lengths - tau).clamp(min=0) / tau).clamp(max=1)
    m = score[right].mean()
    unclamped = c - p + pressure * c * (score - m)
    expected = torch.where(right, pressure * m * (1 - p), -pressure * m * p)
    torch.testing.assert_close(advantages(scalar, group) - unclamped, expected, rtol=0, atol=1e-9)
    # The floor only raises, and right answers only.
    floored = advantages(decoupled, group) - unclamped
    assert bool((floored >= -1e-9).all()) and not bool((floored[~right].abs() > 1e-9).any())


def test_the_scalar_form_pays_wrong_answers_a_little() -> None:
    """p = 7/8, lambda w = .3 * .75 = .225: seven right answers, of which four have s = 0 and three
    s = -1: m = -3/7. The wrong one gets -7/8 + .225 * 3/7 * 7/8.
    """
    control = replace(FIXED, form="scalar")
    group = marks([1] * 7 + [0], [10, 10, 10, 10, 90, 90, 90, 5])
    numbers = advantages(control, group)
    assert float(numbers[-1]) == pytest.approx(-0.875 + 0.225 * 3 / 7 * 7 / 8)
    # A single long one gets 1 - .225 - (1 - .225 / 7) 7/8 < 0; the decoupled floor forbids that.
    group = marks([1] * 7 + [0], [10] * 6 + [90, 5])
    assert float(advantages(control, group)[6]) == pytest.approx(0.775 - (7 - 0.225) / 8)
    assert float(advantages(control, group)[6]) < 0
    assert float(advantages(FIXED, group)[6]) == pytest.approx(0.1 / 8)


def test_all_correct_group_not_normalised() -> None:
    """One token in a hundred makes a hundredth of difference; normalised it is of size 1."""
    group = marks([1] * 4, [100, 100, 100, 101])
    assert float(advantages(FIXED, group).abs().max()) == pytest.approx(0.0075)
    assert float(advantages(replace(FIXED, normalize=True), group).abs().max()) > 1
    scaled = replace(FIXED, batch_std=True)
    assert torch.equal(advantages(scaled, group), advantages(FIXED, group))


def test_target_ignores_shortest() -> None:
    """A lucky guess of one token changes nothing, unless the target is the shortest."""
    lengths, lucky = [50, 60, 60, 60], [1, 60, 60, 60]
    assert not advantages(FIXED, marks([1] * 4, lengths)).any()
    assert not advantages(FIXED, marks([1] * 4, lucky)).any()
    shortest = replace(FIXED, target="shortest")
    assert float(advantages(shortest, marks([1] * 4, lucky)).min()) == -0.25


def test_resampling_keeps_length_groups() -> None:
    """Groups of right answers are kept while their lengths make a difference; those of equal
    answers, right or wrong, are left out.
    """
    group = [0, 0, 1, 1, 2, 2, 3, 3]
    given_marks = marks([1, 1, 1, 1, 0, 0, 1, 0], [10, 90, 10, 10, 10, 90, 10, 90], group)
    kept = [True, True, False, False, False, False, True, True]
    control = replace(FIXED, drop=True)
    assert control.advantages(given_marks, {}).counts.tolist() == kept
    # Without pressure the lengths make none.
    idle = replace(control, fixed_pressure=0.0).advantages(given_marks, {})
    assert idle.counts.tolist() == [False] * 6 + [True] * 2
    assert FIXED.advantages(given_marks, {}).counts.all()


@pytest.mark.parametrize("form", ["decoupled", "scalar"])
@pytest.mark.parametrize(
    "correct",
    [[0, 0, 0], [1, 0, 0], [torch.nan] * 3, [1, torch.nan, torch.nan], [1, 1, torch.nan]],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_degenerate_groups_finite(form: Any, correct: list[float], normalize: bool) -> None:
    control = replace(FIXED, form=form, normalize=normalize, batch_std=True, gate="off")
    group = marks(correct, [5, 500, 50])
    one = control.advantages(group, control.start(Sizes()))
    assert bool(one.numbers.isfinite().all())
    assert not one.numbers[~group.has_mark].any()
    assert one.counts.tolist() == group.has_mark.tolist()
    following = Governor().update(Governor().start(1), group)
    assert bool(following["pressure"].isfinite().all())


def test_settings_that_cannot_work() -> None:
    for settings in (
        {"gate_low": 1.0},
        {"floor": 0},
        {"kappa": 2.0},
        {"late_steps": 0},
        {"quantile": 1.5},
    ):
        with pytest.raises(UsageError, match="|".join(settings)):
            ShortARC(**settings)
