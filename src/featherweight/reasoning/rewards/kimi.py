"""Kimi k1.5's length reward (arXiv 2501.12599, section 2.3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range
from .lengths import position


@dataclass(frozen=True)
class Kimi(Rule):
    """savings = 1/2 - (L - shortest) / (longest - shortest) over all answers of the group; a right
    answer gets c + weight savings, a wrong one weight min(0, savings), and both plain c when all
    are equally long.

    weight: the paper raises it during training and does not publish it; 0.4 is the value of the
    authors of LASER (arXiv 2505.15612), who ran this rule again. Safe up to 2.
    """

    weight: float = 0.4
    name: ClassVar[str] = "kimi"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, 2, "above 2 a wrong answer may get more than a right one")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        if bool((group.lengths == group.lengths[0]).all()):
            return group.correct
        savings = 0.5 - position(group.lengths, group.has_mark)
        bonus = torch.where(group.is_correct, savings, savings.clamp(max=0))
        return group.correct + self.weight * bonus
