"""LDLQ: feedback along the columns. It minimises the layer's own loss tr(D H_I D^T) with
H_I = E[x x^T].

With the format Int this is GPTQ (arXiv:2210.17323) with scales that are fixed beforehand; with
Trellis it is the rounding of QTIP. QuIP (arXiv:2307.13304) proves that it is optimal among methods
with linear feedback. Cost: one Cholesky factorisation of H_I and m n^2 multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, RoundingResult, Split, damped_split, solve_with_feedback


@dataclass(frozen=True)
class LDLQ(Rounding):
    """One-sided feedback. `damp` is added to the diagonal of H_I, in units of its mean diagonal."""

    needs_curvature: ClassVar[bool] = True
    damp: float = 0.01

    def split(
        self, factors: Factors, padded_shape: tuple[int, int], tile: tuple[int, int], name: str
    ) -> Split:
        lower_in, damping = damped_split(
            factors.gram, padded_shape[1], tile[1], self.damp, f"{name} (input side)"
        )
        return Split(lower_in, None, damping)

    def solve(
        self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix"
    ) -> RoundingResult:
        return solve_with_feedback(self, w, factors, format, name)
