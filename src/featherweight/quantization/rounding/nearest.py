"""Nearest: every tile is rounded to its nearest representable values, without curvature. This
minimises ||W - W_hat||^2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, RoundingResult, pad, require_finite


@dataclass(frozen=True)
class Nearest(Rounding):
    """Round to nearest. It is the baseline, and embeddings and heads of 8 bits always use it."""

    needs_curvature: ClassVar[bool] = False

    def solve(
        self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix"
    ) -> RoundingResult:
        require_finite(w, name)
        shape = (w.shape[0], w.shape[1])
        padded_w = pad(w, format.padded(shape))
        params = format.fit(padded_w).stored()
        return RoundingResult(format.pack(format.nearest_codes(padded_w, params), params, shape))
