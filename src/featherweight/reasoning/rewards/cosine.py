"""The cosine reward of "Demystifying long chain-of-thought" (arXiv 2502.03373)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..graded import Graded
from .base import Rule, State, check_range


@dataclass(frozen=True)
class Cosine(Rule):
    """A right answer goes from `short_right` at L = 0 to `long_right` at L = Lmax along half a
    cosine, a wrong one from `short_wrong` to `long_wrong`, so that thinking longer pays when wrong.

    The defaults are open-r1's (1, 1/2, -1, -1/2); the authors' are 2, 1, -10, 0. open-r1 counts
    characters and lets the cosine rise again beyond Lmax; here it stays at its end. Raises
    UsageError when a wrong answer could get more than a right one.
    """

    short_right: float = 1.0
    long_right: float = 0.5
    short_wrong: float = -1.0
    long_wrong: float = -0.5
    name: ClassVar[str] = "cosine"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in ("short_right", "long_right", "short_wrong", "long_wrong"):
            check_range(self, field, -math.inf, math.inf, "use the paper's 2, 1, -10 and 0")
        if max(self.short_wrong, self.long_wrong) > min(self.short_right, self.long_right):
            raise UsageError(
                "cosine: a wrong answer may get more than a right one; use smaller short_wrong and "
                "long_wrong, such as -1 and -0.5"
            )

    def rewards(self, group: Graded, state: State) -> Float[Tensor, " texts"]:
        share = (group.lengths / group.limit).clamp(max=1)
        earliness = (1 + torch.cos(math.pi * share)) / 2
        right = self.long_right + (self.short_right - self.long_right) * earliness
        wrong = self.long_wrong + (self.short_wrong - self.long_wrong) * earliness
        return torch.where(group.is_correct, right, wrong)
