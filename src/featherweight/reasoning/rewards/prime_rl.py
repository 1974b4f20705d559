"""prime-rl's length penalty, scaled by the pass rate (github.com/PrimeIntellect-ai/prime-rl)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class PrimeRL(Rule):
    """r = c - weight p L / longest, by default of the right answers only.

    weight: of output tokens; the terms of prompt tokens and turns (0.1 each) have no meaning for
    one answer to one prompt. correct_only: prime-rl's own rule of 2026 is False, which charges
    wrong answers too, and so pays for failing fast. longest: of the answers that are charged.
    """

    weight: float = 0.25
    correct_only: bool = True
    name: ClassVar[str] = "prime_rl"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, 1, "prime-rl has 0.25; above 1 it is not safe")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_charged = group.is_correct if self.correct_only else group.has_mark
        if not bool(is_charged.any()):
            return group.correct
        share = group.lengths / group.lengths[is_charged].max().clamp(min=1)
        penalty = self.weight * group.correct.mean() * share
        return group.correct - is_charged * penalty
