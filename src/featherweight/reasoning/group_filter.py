"""`GroupFilter`: learn from some answers of a group only, GFPO (arXiv:2508.09726)."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..base.errors import UsageError
from .advantages import STD_FLOOR, Advantages, Control, deviation
from .marks import Marks
from .rewards import Accuracy, Rule, Sizes, State, rewards
from .rewards.gfpo import Measure, keep


@dataclass(frozen=True)
class GroupFilter(Control):
    """Of each group, the `k` shortest answers, or those with the most correctness a token
    (by="efficiency"); their rewards less their mean, over their standard deviation. The other
    answers have advantage 0, and count among the texts of the batch. rule: gives the rewards.
    """

    k: int = 8
    by: Measure = "length"
    rule: Rule = field(default_factory=Accuracy)

    def __post_init__(self) -> None:
        if self.k < 2:
            raise UsageError(f"k={self.k}: at least two answers of a group are compared")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return self.rule.start(sizes)

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        return self.rule.update(state, marks)

    def advantages(self, marks: Marks, state: State) -> Advantages:
        reward = rewards(self.rule, marks, state)
        numbers = torch.zeros_like(reward)
        for rows, group in marks.groups():
            places = rows[keep(group, self.k, self.by)]
            difference = reward[places] - reward[places].mean()
            numbers[places] = difference / (deviation(reward[places]) + STD_FLOOR)
        return Advantages(numbers, marks.has_mark, {"reward": float(reward.nanmean())})
