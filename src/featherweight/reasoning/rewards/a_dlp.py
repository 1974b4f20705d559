"""Adaptive direct length penalty, A-DLP: dual ascent on an accuracy to keep (arXiv 2505.18298)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ..marks import Marks
from .base import Rule, Sizes, State, check_range


@dataclass(frozen=True)
class ADLP(Rule):
    """r = c - penalty L for every answer, and after each batch
    penalty <- max(0, penalty + rate (accuracy of the batch - reference)).

    penalty: at the start, reward a token. rate: change of the penalty a step, for a difference of
    1. reference: the accuracy to keep; 0.62 is DeepScaleR-1.5B's, so measure your own model's. The
    defaults are the authors' script's. Not safe: the penalty has no bound. The state is penalty.
    """

    penalty: float = 1e-3
    rate: float = 1e-3
    reference: float = 0.62
    name: ClassVar[str] = "a_dlp"
    is_safe: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_range(self, "penalty", 0, math.inf, "the authors start at 1e-3 a token")
        check_range(self, "rate", 0, math.inf, "the authors have 1e-3")
        check_range(self, "reference", 0, 1, "use the accuracy of the model before training")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return {"penalty": torch.tensor(self.penalty, dtype=torch.float64)}

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        return group.correct - state["penalty"] * group.lengths

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        correct = batch.correct[batch.has_mark]
        if not len(correct):
            return dict(state)
        rise = self.rate * (correct.mean() - self.reference)
        return {"penalty": (state["penalty"] + rise).clamp(min=0)}
