"""Ternary: every weight is -1, 0 or 1 times a scale shared by its row, or by `group` of its
columns.

The advantage (ternary weight networks, arXiv:1605.04711) is that the product of a row with a vector
needs additions only. On N(0, 1) the squared error is 0.190; two bits with equidistant levels have
0.149. The codes 0, 1, 2 mean -1, 0, 1 and are stored like those of `Int(2)`, 2 bits each. Code 3
has no value; a model that contains it is refused when it is loaded. The zero point is always 1 and
is not stored.

`fit` is exact: if the k largest magnitudes become +-1, the best scale is their (weighted) mean, and
the k with the least squared error is chosen. Cost: one sort of the matrix.
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
    """Weights of -1, 0 or 1 times a scale; fields and errors as in `TernaryLayout`."""

    @property
    def level_range(self) -> tuple[int, int]:
        return (-1, 1)

    def fit_groups(self, weights: Tensor, importance: Tensor) -> dict[str, Tensor]:
        magnitude, order = weights.abs().sort(-1, descending=True)
        masses = importance.expand_as(weights).gather(-1, order)
        sums = (masses * magnitude).cumsum(-1, dtype=torch.float64)
        total_masses = masses.cumsum(-1, dtype=torch.float64)
        means = torch.where(total_masses > 0, sums / total_masses, 0.0)
        # If the k largest magnitudes become their mean, the squared error decreases by
        # sum^2 / mass = sum * mean.
        best = (sums * means).argmax(-1, keepdim=True)
        return {"scale": means.gather(-1, best).squeeze(-1).float()}

    def round_to_codes(
        self, w: Tensor, scale: Tensor, zero: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        # The levels are rounded before the zero point is added. `round` goes to the even neighbour,
        # so 0.5 becomes 0 here, but 0.5 + 1 would become 2, which is level 1.
        levels = (w / scale).round().clamp(-1, 1)
        return levels * scale, (levels + zero).to(torch.uint8)

    def check_codes(self, weight: QWeight, name: str) -> None:
        codes = weight.tensors["codes"]
        if bool(((codes & (codes >> 1)) & 0b01010101).any()):
            raise BadInput(f"{name} holds code 3, which no ternary weight has; the file is damaged")
