"""`ShortARC`: adaptive control of reasoning length. Easy questions get short answers, hard ones
keep their thought, and accuracy does not pay.

Short-ARC as a name has no public text. This controller is our own derivation from neighbouring
work, and no number or setting in it comes from a paper of that name; docs/reasoning.md has the
derivation.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..base.errors import UsageError
from .advantages import STD_FLOOR, Advantages, Control, center, deviation, useful
from .governor import Governor
from .marks import Marks
from .rewards import Sizes, State

Form = Literal["decoupled", "scalar"]
Gate = Literal["group", "bucket", "off"]
Target = Literal["quantile", "shortest"]
FORMS, GATES, TARGETS = (
    ("decoupled", "scalar"),
    ("group", "bucket", "off"),
    ("quantile", "shortest"),
)
# Of the scalar form: a right answer is worth at least 1 - SCALAR_LIMIT, a wrong one 0.
SCALAR_LIMIT = 0.3
BATCH_STD_FLOOR = 0.1


@dataclass(frozen=True)
class ShortARC(Control):
    """The controller.

    For each group, with p the share of right answers and L their thinking tokens:

    1. Gate: w = clip((p - gate_low) / (gate_high - gate_low), 0, 1). A question that is often
       answered wrongly feels no pressure. gate="bucket" takes the smoothed accuracy of the bucket
       for p, which is less noisy when groups are small; "off": w = 1.
    2. Target: tau = max(floor, quantile of the lengths of right answers) (1 + slack); with fewer
       than two right answers w = 0. The quantile moves from `quantile` to `late_quantile` over
       `late_steps` steps. target="shortest" takes the minimum, a lucky guess included.
    3. Saving score of right answers: s = -min(cap, max(0, L - tau) / tau); wrong ones have none.
    4. form="scalar": r = c (1 + lambda w s), lambda at most `SCALAR_LIMIT`, minus the group's mean.
       form="decoupled": A = A_accuracy + A_length, A_accuracy = c - p, A_length = lambda w (s -
       mean of s over right answers) on right answers and 0 on wrong ones. In groups with both, a
       right answer keeps at least kappa A_accuracy (all of it where a grader of partial scores put
       the answer below the mean of its group). A_length is never normalised, so it fades as
       lengths agree; `normalize` does it all the same, to see what it breaks.
    5. lambda is the governor's, for the bucket of the question; None: always `fixed_pressure`.

    batch_std: divide A_accuracy by the standard deviation of correctness in the batch, at least
    .1. drop: leave out groups in which all advantages are 0. Raises UsageError for settings that
    cannot work.
    """

    form: Form = "decoupled"
    floor: float = 16.0
    quantile: float = 0.5
    late_quantile: float = 0.25
    late_steps: int = 100
    slack: float = 0.05
    cap: float = 1.0
    gate: Gate = "group"
    gate_low: float = 0.5
    gate_high: float = 1.0
    target: Target = "quantile"
    kappa: float = 0.1
    governor: Governor | None = field(default_factory=Governor)
    fixed_pressure: float = 1.0
    batch_std: bool = False
    normalize: bool = False
    drop: bool = False

    def __post_init__(self) -> None:
        for name, names in (("form", FORMS), ("gate", GATES), ("target", TARGETS)):
            if getattr(self, name) not in names:
                raise UsageError(f"{name}={getattr(self, name)!r}: choose {', '.join(names)}")
        if not 0 <= self.gate_low < self.gate_high <= 1:
            raise UsageError(
                f"gate_low={self.gate_low} < gate_high={self.gate_high}, both in 0 to 1"
            )
        if self.floor < 1 or self.cap <= 0 or self.slack < 0 or not 0 <= self.kappa <= 1:
            raise UsageError(
                f"floor={self.floor} is at least 1 token, cap={self.cap} above 0, "
                f"slack={self.slack} at least 0, kappa={self.kappa} in 0 to 1"
            )
        if self.form == "scalar" and self.cap > 1:
            raise UsageError(
                f"cap={self.cap} is at most 1 with form='scalar', so that a right answer is worth "
                f"at least {1 - SCALAR_LIMIT}"
            )
        if not self.fixed_pressure >= 0:
            raise UsageError(
                f"fixed_pressure={self.fixed_pressure} is at least 0; below it, long answers win"
            )
        if not (0 <= self.late_quantile <= 1 and 0 <= self.quantile <= 1 and self.late_steps >= 1):
            raise UsageError("quantile and late_quantile are in 0 to 1, late_steps at least 1")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return (self.governor or Governor()).start(sizes.buckets)

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        return (self.governor or Governor()).update(state, marks)

    def advantages(self, marks: Marks, state: State) -> Advantages:
        pressure = self._pressure(marks, state)
        gate, score = self._gate_and_score(marks, state)
        strength = pressure * gate
        if self.form == "scalar":
            numbers, num_clamped = center(_reward(marks, strength, score), marks), 0
        else:
            numbers, num_clamped = self._decouple(marks, strength, score)
        is_right = marks.correct.nan_to_num() > 0
        counts = useful(numbers, marks) if self.drop else marks.has_mark
        facts = {
            "pressure": float(pressure.mean()),
            "gate": float(gate.mean()),
            "clamped": num_clamped / max(int(is_right.sum()), 1),
        }
        return Advantages(numbers, counts, facts)

    def rewards(self, marks: Marks, state: State) -> Float[Tensor, " texts"]:
        """r of the scalar form, for trainers that take one number an answer; NaN for an answer
        without mark.
        """
        gate, score = self._gate_and_score(marks, state)
        return _reward(marks, self._pressure(marks, state) * gate, score)

    def _pressure(self, marks: Marks, state: State) -> Float[Tensor, " texts"]:
        """lambda of each answer."""
        if self.governor is None:
            pressure = torch.full_like(marks.correct, self.fixed_pressure)
        else:
            pressure = self.governor.pressure(state, marks)
        return pressure.clamp(max=SCALAR_LIMIT) if self.form == "scalar" else pressure

    def _gate_and_score(
        self, marks: Marks, state: State
    ) -> tuple[Float[Tensor, " texts"], Float[Tensor, " texts"]]:
        """w of the group of each answer, and s of each answer, 0 for wrong ones."""
        gate, score = torch.zeros_like(marks.lengths), torch.zeros_like(marks.lengths)
        for rows, group in marks.groups():
            is_right = group.correct > 0
            if int(is_right.sum()) < 2:
                continue
            gate[rows] = self._gate(group, state)
            score[rows[is_right]] = self._scores(group.lengths[is_right], marks.step)
        return gate, score

    def _gate(self, group: Marks, state: State) -> float:
        if self.gate == "off":
            return 1.0
        p = float(group.correct.mean())
        if self.gate == "bucket":
            average = float(state["accuracy"][int(group.bucket[0])])
            p = p if average != average else average
        return min(1.0, max(0.0, (p - self.gate_low) / (self.gate_high - self.gate_low)))

    def _scores(self, lengths: Float[Tensor, " right"], step: int) -> Float[Tensor, " right"]:
        """s of the right answers of a group."""
        if self.target == "shortest":
            length = float(lengths.min())
        else:
            progress = min(1.0, step / self.late_steps)
            share = self.quantile + progress * (self.late_quantile - self.quantile)
            length = float(lengths.quantile(share))
        tau = max(self.floor, length) * (1 + self.slack)
        return -((lengths - tau).clamp(min=0) / tau).clamp(max=self.cap)

    def _decouple(
        self, marks: Marks, strength: Float[Tensor, " texts"], score: Float[Tensor, " texts"]
    ) -> tuple[Float[Tensor, " texts"], int]:
        """The advantages, and how many right answers the floor caught."""
        accuracy, length = center(marks.correct, marks), torch.zeros_like(score)
        if self.batch_std:
            deviation_of_marks = deviation(marks.correct[marks.has_mark])
            accuracy = accuracy / deviation_of_marks.clamp(min=BATCH_STD_FLOOR)
        floor = torch.full_like(score, -torch.inf)
        for rows, group in marks.groups():
            is_right = group.correct > 0
            right = rows[is_right]
            if len(right) == 0:
                continue
            difference = score[right] - score[right].mean()
            if self.normalize:
                difference = difference / (deviation(score[right]) + STD_FLOOR)
            length[right] = strength[right] * difference
            if len(right) < len(rows):
                numbers = accuracy[right]
                floor[right] = torch.where(numbers > 0, self.kappa * numbers, numbers)
        numbers = accuracy + length
        is_low = numbers < floor
        return torch.where(is_low, floor, numbers), int(is_low.sum())


def _reward(
    marks: Marks, strength: Float[Tensor, " texts"], score: Float[Tensor, " texts"]
) -> Float[Tensor, " texts"]:
    """r of the scalar form."""
    return marks.correct * (1 + strength * score)
