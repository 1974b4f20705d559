"""LDLQ: feedback along the columns, for the layer's own loss tr(D H_I D^T), H_I = E[x x^T].

With Int this is GPTQ (arXiv:2210.17323) with scales fixed beforehand, with Trellis it is QTIP's
rounding; the optimality among linear feedbacks is QuIP's (arXiv:2307.13304). Cost: one Cholesky of
H_I and m n^2 multiplications.
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
    """`damp`: added to H_I's diagonal, in units of its mean."""

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
