"""DLER: plain truncation, and DA-DLER, whose limit depends on the difficulty (arXiv 2510.15110).

The paper's gains come from what surrounds the reward: advantages divided by the standard deviation
of the batch, a higher upper clip and dynamic sampling. Both rules pay a right answer that is too
long as little as a wrong one, never less.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range

TARGET_ADVICE = "the paper has 4000 tokens, or 2000 for easy prompts"


@dataclass(frozen=True)
class DLER(Rule):
    """r = c 1[L <= target].

    target: tokens.
    """

    target: int = 4000
    name: ClassVar[str] = "dler"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "target", 1, math.inf, TARGET_ADVICE)

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct * (group.lengths <= self.target)


@dataclass(frozen=True)
class DADLER(Rule):
    """r = c 1[L <= target], target = `easy` tokens when p is above `threshold`, else `hard`."""

    easy: int = 2000
    hard: int = 4000
    threshold: float = 0.5
    name: ClassVar[str] = "da_dler"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "easy", 1, math.inf, TARGET_ADVICE)
        check_range(self, "hard", 1, math.inf, TARGET_ADVICE)
        check_range(self, "threshold", 0, 1, "the paper has 0.5")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_easy = bool(group.correct.mean() > self.threshold)
        return group.correct * (group.lengths <= (self.easy if is_easy else self.hard))
