"""YAQA: two-sided feedback, for the whole model's loss tr(H_O D H_I D^T) (model-preserving adaptive rounding).

H_O and H_I are Kronecker factors of the Fisher information, so the loss estimates KL(original || rounded)
(arXiv:2505.22988). Strong output damping matters when curvature comes from few tokens: `damp_output -> inf` is LDLQ.
Cost: two Cholesky factorisations and m n (m + n) multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...base.errors import BadInput
from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, Solved, feedback, pad, prepared, require_finite


@dataclass(frozen=True)
class YAQA(Rounding):
    """Dampings in units of each factor's mean diagonal. Factors without an output side fall back to one side."""

    damp: float = 0.01
    damp_output: float = 0.5

    def solve(self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix") -> Solved:
        if factors is None:
            raise BadInput(f"{name}: YAQA needs curvature; collect it with FisherB")
        require_finite(w, name)
        shape = (w.shape[0], w.shape[1])
        padded = pad(w, format.padded(shape))
        lower_in, used = prepared(factors.input, padded.shape[1], format.tile[1], self.damp, f"{name} (input side)")
        lower_out, used_out = None, None
        if factors.output is not None:
            lower_out, used_out = prepared(
                factors.output, padded.shape[0], format.tile[0], self.damp_output, f"{name} (output side)"
            )
        params = format.fit(padded)
        _, codes = feedback(padded, lower_out, lower_in, lambda x, r, c: format.snap(x, params, r, c), format.tile)
        return Solved(format.pack(codes, params, shape), used, used_out)
