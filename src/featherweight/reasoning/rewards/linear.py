"""Accuracy alone, and the blunt length penalty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State


@dataclass(frozen=True)
class Accuracy(Rule):
    """r = c: plain GRPO, the baseline that every other rule is compared with."""

    is_safe: ClassVar[bool] = True

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct


@dataclass(frozen=True)
class Linear(Rule):
    """r = c - alpha L: every token costs the same, also in an answer that is wrong without it.

    alpha: reward a token; there is no published value, it is swept.
    """

    alpha: float = 1e-3
    is_safe: ClassVar[bool] = False

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct - self.alpha * group.lengths
