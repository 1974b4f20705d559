"""YAQA: two-sided feedback, for the whole model's loss tr(H_O D H_I D^T) (model-preserving adaptive rounding).

H_O and H_I are Kronecker factors of the Fisher information, so the loss estimates KL(original || rounded)
(arXiv:2505.22988). Strong output damping matters when curvature comes from few tokens: `damp_output -> inf` is LDLQ.
Cost: two Cholesky factorisations and m n (m + n) multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...base.errors import UsageError
from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, Solved, Split, prepared, solve_with_feedback


@dataclass(frozen=True)
class YAQA(Rounding):
    """Dampings in units of each factor's mean diagonal. Factors without an output side fall back to one side.

    `input`: "gram" feeds the activations' second moment to the input side, "fisher" the Fisher's own. The Gram is known
    from every token, the Fisher side from every sequence: with few sequences the Gram gave 7 % less KL (docs/log.md).
    """

    damp: float = 0.01
    damp_output: float = 0.5
    input: str = "gram"

    def __post_init__(self) -> None:
        if self.input not in ("gram", "fisher"):
            raise UsageError(f"YAQA(input={self.input!r}): choose gram or fisher")

    def split(self, factors: Factors, padded: tuple[int, int], tile: tuple[int, int], name: str) -> Split:
        h_in = factors.gram if self.input == "gram" else factors.input
        lower_in, used = prepared(h_in, padded[1], tile[1], self.damp, f"{name} (input side)")
        if factors.output is None:
            return Split(lower_in, None, used)
        lower_out, used_out = prepared(factors.output, padded[0], tile[0], self.damp_output, f"{name} (output side)")
        return Split(lower_in, lower_out, used, used_out)

    def solve(self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix") -> Solved:
        return solve_with_feedback(self, w, factors, format, name)
