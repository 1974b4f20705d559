"""`DecoupledRewards`: right answers are compared with right ones only, DRPO (arXiv:2510.04474)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..base.errors import UsageError
from .advantages import Advantages, Control
from .marks import Marks
from .rewards import State
from .rewards.drpo import advantages as group_advantages


@dataclass(frozen=True)
class DecoupledRewards(Control):
    """In each group with right and wrong answers the advantages of `rewards.drpo`, times the number
    of answers, so that a sum over tokens and a mean over answers give the paper's objective.

    lam: smaller is shorter; tau: temperature of the wrong answers, by the mean log-probability of
    their tokens (equal weights where it is unknown). Raises UsageError unless both are positive.
    """

    lam: float = 0.1
    tau: float = 10.0

    def __post_init__(self) -> None:
        if self.lam <= 0 or self.tau <= 0:
            raise UsageError(f"lam={self.lam} and tau={self.tau} should be above 0")

    def advantages(self, marks: Marks, state: State) -> Advantages:
        numbers = torch.zeros_like(marks.correct)
        for rows, group in marks.groups():
            scores = group.mean_logprob.nan_to_num()
            factors = group_advantages(group, scores, self.lam, self.tau)
            numbers[rows] = factors * len(rows)
        return Advantages(numbers, marks.has_mark)
