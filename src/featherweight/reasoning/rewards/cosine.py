"""The cosine reward of "Demystifying long chain-of-thought" (arXiv 2502.03373)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..marks import Marks
from .base import Rule, State, check_range


@dataclass(frozen=True)
class Cosine(Rule):
    """A right answer goes from `right_start` at L = 0 to `right_end` at L = Lmax along half a
    cosine, a wrong one from `wrong_start` to `wrong_end`, so that thinking longer pays when wrong.

    The defaults are open-r1's (1, 1/2, -1, -1/2); the authors' are 2, 1, -10, 0. open-r1 counts
    characters and lets the cosine rise again beyond Lmax; here it stays at its end. Raises
    UsageError when a wrong answer could get more than a right one.
    """

    right_start: float = 1.0
    right_end: float = 0.5
    wrong_start: float = -1.0
    wrong_end: float = -0.5
    name: ClassVar[str] = "cosine"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for field in ("right_start", "right_end", "wrong_start", "wrong_end"):
            check_range(self, field, -math.inf, math.inf, "use the paper's 2, 1, -10 and 0")
        if max(self.wrong_start, self.wrong_end) > min(self.right_start, self.right_end):
            raise UsageError(
                "cosine: a wrong answer may get more than a right one; use smaller wrong_start and "
                "wrong_end, such as -1 and -0.5"
            )

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        share = (group.lengths / group.limit).clamp(max=1)
        earliness = (1 + torch.cos(math.pi * share)) / 2
        right_rewards = self.right_end + (self.right_start - self.right_end) * earliness
        wrong_rewards = self.wrong_end + (self.wrong_start - self.wrong_end) * earliness
        return torch.where(group.is_correct, right_rewards, wrong_rewards)
