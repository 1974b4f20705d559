"""Ternary: every weight is -1, 0 or 1 times a scale shared by its row, or by `group` of its
columns.

The idea (ternary weight networks, arXiv:1605.04711): inside a row a product needs additions only.
On N(0, 1) the error is 0.190, where two bits of equidistant levels leave 0.149. Codes 0, 1, 2 mean
-1, 0, 1 and are stored as `Int(2)` stores its codes, 2 bits each; code 3 stands for no number and
is refused when a model is loaded. The zero point is always 1 and is not stored.

`fit` is exact: if the k largest magnitudes become +-1, the best scale is their (weighted) mean, and
of all k the one with the least squared error is taken. Cost: one sort of the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...base.errors import BadInput
from ..layouts.ternary import TernaryLayout
from .base import QWeight
from .scaled_codes import ScaledCodes


@dataclass(frozen=True, repr=False)
class Ternary(TernaryLayout, ScaledCodes):
    """-1, 0 or 1 times a scale; `group=None` shares one scale across a whole row."""

    @property
    def level_range(self) -> tuple[int, int]:
        return (-1, 1)

    def fit_groups(self, weights: Tensor, importance: Tensor) -> dict[str, Tensor]:
        magnitude, order = weights.abs().sort(-1, descending=True)
        masses = importance.expand_as(weights).gather(-1, order)
        sums = (masses * magnitude).cumsum(-1, dtype=torch.float64)
        total_masses = masses.cumsum(-1, dtype=torch.float64)
        means = torch.where(total_masses > 0, sums / total_masses, 0.0)
        # With the k largest at their mean the error falls by sum^2 / mass = sum * mean.
        best = (sums * means).argmax(-1, keepdim=True)
        return {"scale": means.gather(-1, best).squeeze(-1).float()}

    def round_to_codes(
        self, w: Tensor, scale: Tensor, zero: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        # Levels are rounded before the zero point is added: the other order would round 0.5 away
        # from zero.
        levels = (w / scale).round().clamp(-1, 1)
        return levels * scale, (levels + zero).to(torch.uint8)

    def check_codes(self, weight: QWeight, name: str) -> None:
        codes = weight.tensors["codes"]
        if bool(((codes & (codes >> 1)) & 0b01010101).any()):
            raise BadInput(f"{name} holds code 3, which no ternary weight has; the file is damaged")
