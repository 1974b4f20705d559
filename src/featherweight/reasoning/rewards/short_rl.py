"""Short-RL: shorter only while the accuracy is near its best (arXiv 2505.12284)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, Sizes, State, check_range
from .lengths import position


@dataclass(frozen=True)
class ShortRL(Rule):
    """A right answer gets 1 + 1/2 within `tolerance` tokens of the shortest right one, beyond that
    1 + 1/2 - (L - shortest) / (longest - shortest) over the right ones, but plain 1 while the
    accuracy of the last batch is more than `accuracy_tolerance` below the best. A wrong one gets 0.

    tolerance: tokens, 100 for mathematics and 200 for logic puzzles. The authors' gate sees the
    batch that is rewarded, this one the batch before it; their verdict on a right answer is 3 and
    on a wrong one from -3 to -0.5, here they are 1 and 0. The state is accuracy and best_accuracy.
    """

    tolerance: int = 100
    accuracy_tolerance: float = 0.05
    name: ClassVar[str] = "short_rl"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "tolerance", 0, math.inf, "the authors have 100 or 200 tokens")
        check_range(self, "accuracy_tolerance", 0, 1, "the authors have 0.05")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        zero = torch.zeros((), dtype=torch.float64)
        return {"accuracy": zero, "best_accuracy": zero.clone()}

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        is_correct = group.is_correct
        is_open = state["accuracy"] >= state["best_accuracy"] - self.accuracy_tolerance
        if not bool(is_open) or not bool(is_correct.any()):
            return group.correct
        is_near = group.lengths <= group.lengths[is_correct].min() + self.tolerance
        savings = 0.5 - torch.where(is_near, 0.0, position(group.lengths, is_correct))
        return group.correct + is_correct * savings

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        correct = batch.correct[batch.has_mark]
        if not len(correct):
            return dict(state)
        accuracy = correct.mean()
        return {
            "accuracy": accuracy,
            "best_accuracy": torch.maximum(state["best_accuracy"], accuracy),
        }
