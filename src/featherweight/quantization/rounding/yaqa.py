"""YAQA (model-preserving adaptive rounding, arXiv:2505.22988): two-sided feedback, which minimises
the loss of the whole model tr(H_O D H_I D^T).

H_O and H_I are Kronecker factors of the Fisher information, so the loss estimates
KL(original || rounded). When the curvature comes from few tokens, the output side needs strong
damping; in the limit of infinite `damp_output` the method is LDLQ. Cost: two Cholesky
factorisations and m n (m + n) multiplications.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from ..curvature.base import Factors
from ..curvature.damping import normalise
from ..formats.base import Format
from .base import Rounding, RoundingResult, Split, damped_split, solve_with_feedback

INPUTS = ("gram", "fisher", "mean")


@dataclass(frozen=True)
class YAQA(Rounding):
    """Two-sided feedback. A layer whose factors have no output side gets one-sided feedback.

    damp, damp_output: are added to the diagonals of the input and the output factor, in units of
    their mean diagonals. input: the input side. "gram" is the second moment of the activations,
    "fisher" the input side of the Fisher information, "mean" the mean of both after scaling each to
    unit mean diagonal. The derivation of the loss needs the Fisher side, but the Gram matrix is
    estimated with less noise; their mean gave a smaller KL than either (docs/log.md). Raises
    UsageError for another `input`.
    """

    needs_curvature: ClassVar[bool] = True
    damp: float = 0.03
    damp_output: float = 0.3
    input: str = "mean"

    def __post_init__(self) -> None:
        if self.input not in INPUTS:
            raise UsageError(f"YAQA(input={self.input!r}): choose one of {', '.join(INPUTS)}")

    def split(
        self, factors: Factors, padded_shape: tuple[int, int], tile: tuple[int, int], name: str
    ) -> Split:
        lower_in, damping = damped_split(
            self.input_side(factors, name),
            padded_shape[1],
            tile[1],
            self.damp,
            f"{name} (input side)",
        )
        if factors.output is None:
            return Split(lower_in, None, damping)
        lower_out, output_damping = damped_split(
            factors.output, padded_shape[0], tile[0], self.damp_output, f"{name} (output side)"
        )
        return Split(lower_in, lower_out, damping, output_damping)

    def input_side(self, factors: Factors, name: str) -> Float[Tensor, "n n"]:
        """The input side that `input` chooses; the Gram matrix when the factors have no other."""
        if self.input == "gram" or factors.fisher_input is None:
            return factors.gram
        if self.input == "fisher":
            return factors.fisher_input
        return (normalise(factors.gram, name) + normalise(factors.fisher_input, name)) / 2

    def solve(
        self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix"
    ) -> RoundingResult:
        return solve_with_feedback(self, w, factors, format, name)
