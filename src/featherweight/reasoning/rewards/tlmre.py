"""Training language models to reason efficiently, TLMRE (arXiv 2502.04463)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, State, check_range

# Keeps the deviation finite when the right answers are equally long, as in the authors' code.
EPSILON = 1e-7


@dataclass(frozen=True)
class TLMRE(Rule):
    """r = c (1 - alpha sigmoid((L - mean) / std)), mean and std over the right answers.

    alpha: from 0.05 to 0.4 in the paper. An answer without an end counts as wrong there and here.
    """

    alpha: float = 0.1
    name: ClassVar[str] = "tlmre"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "alpha", 0, 1, "the paper has 0.05 to 0.4")

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        lengths = group.lengths[group.is_correct]
        if not len(lengths):
            return group.correct
        deviation = (group.lengths - lengths.mean()) / (lengths.std(correction=0) + EPSILON)
        return group.correct * (1 - self.alpha * torch.sigmoid(deviation))
