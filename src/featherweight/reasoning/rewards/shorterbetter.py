"""ShorterBetter: close to the shortest right answer (arXiv 2504.21370)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class ShorterBetter(Rule):
    """r = alpha c - beta |L - optimal|, optimal the length of the shortest right answer of the
    group, or the mean length when none is right.

    alpha: reward of a right answer (the paper also has 1). beta: reward a token. Both are from the
    authors' code. Not safe: a right answer alpha / beta tokens longer than the shortest one gets
    less than a wrong one of its length.
    """

    alpha: float = 2.0
    beta: float = 1e-3
    name: ClassVar[str] = "shorterbetter"
    is_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, math.inf, "the authors have 1 or 2")
        check_range(self, "beta", 0, math.inf, "the authors have 1e-3 a token")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_correct = group.is_correct
        has_right = bool(is_correct.any())
        optimal = group.lengths[is_correct].min() if has_right else group.lengths.mean()
        return self.alpha * group.correct - self.beta * (group.lengths - optimal).abs()
