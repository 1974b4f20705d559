"""Adaptive accuracy-length control, AALC (arXiv 2506.20160)."""

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
class AALC(Rule):
    """r = (0.9 + 0.1 (1 - a)) c + weight (1 - min(a^power, L / Lmax)), a = min(1, accuracy /
    target); r = c before the first accuracy is known. The length counts only when a is near 1.

    weight, power and target are the authors' code's. They take the accuracy on validation data;
    `update` takes that of the batch, and a training loop that validates may write its own into the
    state, whose one tensor is accuracy (NaN at the start).
    """

    weight: float = 1e-6
    power: int = 128
    target: float = 1.0
    name: ClassVar[str] = "aalc"
    is_safe: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check_range(self, "weight", 0, 0.9, "the authors have 1e-6; above 0.9 it is not safe")
        check_range(self, "power", 1, math.inf, "the authors have 128")
        check_range(self, "target", 0.01, 1, "the authors have 1")

    def start(self, sizes: Sizes) -> dict[str, Tensor]:
        return {"accuracy": torch.tensor(torch.nan, dtype=torch.float64)}

    def rewards(self, group: Marks, state: State) -> Float[Tensor, " texts"]:
        if bool(state["accuracy"].isnan()):
            return group.correct
        attainment = (state["accuracy"] / self.target).clamp(max=1)
        share = (group.lengths / group.limit).clamp(max=1)
        savings = 1 - torch.minimum(attainment**self.power, share)
        return (0.9 + 0.1 * (1 - attainment)) * group.correct + self.weight * savings

    def update(self, state: State, batch: Marks) -> dict[str, Tensor]:
        correct = batch.correct[batch.has_mark]
        return {"accuracy": correct.mean()} if len(correct) else dict(state)
