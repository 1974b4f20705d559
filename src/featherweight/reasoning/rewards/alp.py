"""Adaptive length penalty, ALP: tokens cost more where the model is right more often
(arXiv 2506.05256).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class ALP(Rule):
    """r = c - beta L max(p, 1/K), K the answers of the group.

    beta: reward a token. Safe while beta times the limit is below 1, that is up to a limit of ten
    million tokens for the published value. So small a penalty works through an advantage that is
    divided by the standard deviation of the group. Formula and beta are from memory and were not
    compared with the paper again.
    """

    beta: float = 1e-7
    name: ClassVar[str] = "alp"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "beta", 0, math.inf, "the paper has 1e-7 a token")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        solve_rate = group.correct.mean().clamp(min=1 / len(group))
        return group.correct - self.beta * group.lengths * solve_rate
