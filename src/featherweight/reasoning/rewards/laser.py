"""LASER: a bonus for right answers within a target length (arXiv 2505.15612)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


def verdict(group: Marks) -> Float[Tensor, " texts"]:
    """1 for a right answer, -0.5 for a wrong one, -1 for one that was cut at the limit."""
    penalties = torch.where(group.is_cut, -1.0, -0.5).to(group.correct)
    return torch.where(group.is_correct, torch.ones_like(group.correct), penalties)


@dataclass(frozen=True)
class Laser(Rule):
    """r = R + bonus 1[right and L <= target], R = 1 right, -0.5 wrong, -1 cut at the limit.

    bonus: reward. target: tokens; 2048 to 8192 of a limit of 16384 in the paper, so choose a
    quarter of another limit.
    """

    bonus: float = 0.5
    target: int = 4096
    name: ClassVar[str] = "laser"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "bonus", 0, math.inf, "the paper has 0.5")
        check_range(self, "target", 1, math.inf, "the paper has a quarter of the limit")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_short = group.is_correct & (group.lengths <= self.target)
        return verdict(group) + self.bonus * is_short.double()
