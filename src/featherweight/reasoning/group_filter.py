"""`GroupFilter`: learn from some answers of a group only, GFPO (arXiv:2508.09726)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..base.errors import UsageError
from .advantages import STD_FLOOR, Advantages, RuleControl, deviation
from .marks import Marks
from .rewards import State
from .rewards.gfpo import Measure, keep


@dataclass(frozen=True)
class GroupFilter(RuleControl):
    """Of each group, the `k` shortest answers, or those with the most correctness a token
    (by="efficiency"); their rewards less their mean, over their standard deviation. The other
    answers have advantage 0, and count among the texts of the batch. rule: gives the rewards.
    """

    k: int = 8
    by: Measure = "length"

    def __post_init__(self) -> None:
        if self.k < 2:
            raise UsageError(f"k={self.k}: at least two answers of a group are compared")

    def advantages(self, marks: Marks, state: State) -> Advantages:
        reward = self.rewards(marks, state)
        numbers = torch.zeros_like(reward)
        for rows, group in marks.groups():
            places = rows[keep(group, self.k, self.by)]
            difference = reward[places] - reward[places].mean()
            numbers[places] = difference / (deviation(reward[places]) + STD_FLOOR)
        return Advantages(numbers, marks.has_mark, {"reward": float(reward.nanmean())})
