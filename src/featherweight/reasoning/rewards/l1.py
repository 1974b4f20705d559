"""L1: the prompt says how long to think (arXiv 2503.04697)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks
from .base import Rule, State, check_range

SLOPE_ADVICE = "the paper has 3e-4 a token"


@dataclass(frozen=True)
class L1Exact(Rule):
    """r = c - alpha |n - L|, n the length that the prompt asked for (LCPO-Exact).

    alpha: reward a token. Not safe: a right answer far from n gets less than a wrong one of length
    n. Raises UsageError when a prompt asked for no length.
    """

    alpha: float = 3e-4
    name: ClassVar[str] = "l1_exact"
    is_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, math.inf, SLOPE_ADVICE)

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct - self.alpha * (_budget(self, group) - group.lengths).abs()


@dataclass(frozen=True)
class L1Max(Rule):
    """r = c clip(alpha (n - L) + delta, 0, 1), n the longest length that the prompt allowed
    (LCPO-Max).

    alpha: reward a token. delta: the reward at L = n. A right answer longer than n + delta / alpha
    gets 0 like a wrong one, never less. The authors' code has half this slope for the same alpha.
    Raises UsageError when a prompt asked for no length.
    """

    alpha: float = 3e-4
    delta: float = 0.5
    name: ClassVar[str] = "l1_max"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, math.inf, SLOPE_ADVICE)
        check_range(self, "delta", 0, 1, "the paper has 0.5")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        savings = self.alpha * (_budget(self, group) - group.lengths)
        return group.correct * (savings + self.delta).clamp(0, 1)


def _budget(rule: Rule, group: Marks) -> Float[Tensor, " texts"]:
    if bool(group.budget.isnan().any()):
        raise UsageError(
            f"{rule.name} needs prompts that ask for a length; give each answer its budget, or "
            "use kimi or laser, which need none"
        )
    return group.budget
