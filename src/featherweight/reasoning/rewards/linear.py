"""Accuracy alone, and the blunt length penalty."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class Accuracy(Rule):
    """r = c: plain GRPO, the baseline that every other rule is compared with."""

    name: ClassVar[str] = "none"
    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct


@dataclass(frozen=True)
class Linear(Rule):
    """r = c - alpha L: every token costs the same, also in an answer that is wrong without it.

    alpha: reward a token; there is no published value, it is swept.
    """

    alpha: float = 1e-3
    name: ClassVar[str] = "linear"
    is_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, math.inf, "1 / limit makes the longest answer worth nothing")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct - self.alpha * group.lengths
