"""Just-enough thinking, JET (arXiv 2509.23392): its reward, without its shortened rollouts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range
from .lengths import position


@dataclass(frozen=True)
class JET(Rule):
    """r = 0.9 c + 0.1 f, and a right answer gets besides that
    delta + (1 - delta) alpha (longest - L) / (longest - shortest) over the right answers.

    f: whether the answer keeps the format; here 1 unless it was cut at the limit. alpha, delta:
    the authors' code's; alpha=1, delta=0 is their linear variant. Safe for all values.
    """

    alpha: float = 1.2
    delta: float = 0.05
    name: ClassVar[str] = "jet"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, math.inf, "the authors have 1.2 or 1")
        check_range(self, "delta", 0, 1, "the authors have 0.05 or 0")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_correct = group.is_correct
        savings = position(-group.lengths, is_correct)
        bonus = self.delta + (1 - self.delta) * self.alpha * savings
        return 0.9 * group.correct + 0.1 * (~group.is_cut).double() + is_correct * bonus
