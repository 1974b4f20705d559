"""Difficulty-adaptive slow thinking, DAST (arXiv 2503.04472)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State


@dataclass(frozen=True)
class DAST(Rule):
    """A right answer gets max(1/2 - z/2, 0.1), a wrong one min(0.9 z - 0.1, -0.1), where
    z = (L - B) / B, B = p m + (1 - p) Lmax, and m is the mean length of the right answers.

    Long wrong answers to a hard question lose little, long right answers to an easy one much. The
    paper makes preference pairs of these numbers; here they are rewards. The four constants are
    from memory and were not compared with the paper again.
    """

    name: ClassVar[str] = "dast"
    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_correct = group.is_correct
        solve_rate = is_correct.double().mean()
        mean = group.lengths[is_correct].mean().nan_to_num()
        budget = solve_rate * mean + (1 - solve_rate) * group.limit
        budget = budget.clamp(min=1)  # answers without thinking may have no tokens
        excess = (group.lengths - budget) / budget
        right_rewards = (0.5 - 0.5 * excess).clamp(min=0.1)
        wrong_rewards = (0.9 * excess - 0.1).clamp(max=-0.1)
        return torch.where(is_correct, right_rewards, wrong_rewards)
