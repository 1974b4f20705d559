"""LDLQ: feedback along the columns, for the layer's own loss tr(D H_I D^T), H_I = E[x x^T].

With Int this is GPTQ (arXiv:2210.17323) with scales fixed beforehand, with Trellis it is QTIP's rounding; the optimality
among linear feedbacks is QuIP's (arXiv:2307.13304). Cost: one Cholesky of H_I and m n^2 multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...base.errors import BadInput
from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, Solved, feedback, pad, prepared, require_finite


@dataclass(frozen=True)
class LDLQ(Rounding):
    """`damp`: added to H_I's diagonal, in units of its mean."""

    damp: float = 0.01

    def solve(self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix") -> Solved:
        if factors is None:
            raise BadInput(f"{name}: LDLQ needs curvature; collect it with Gram or FisherB, or use Nearest")
        require_finite(w, name)
        shape = (w.shape[0], w.shape[1])
        padded = pad(w, format.padded(shape))
        lower_in, used = prepared(factors.gram, padded.shape[1], format.tile[1], self.damp, f"{name} (input side)")
        params = format.fit(padded)
        _, codes = feedback(padded, None, lower_in, lambda x, r, c: format.snap(x, params, r, c), format.tile)
        return Solved(format.pack(codes, params, shape), used)
