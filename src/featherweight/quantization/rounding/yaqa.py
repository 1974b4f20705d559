"""YAQA: two-sided feedback, for the whole model's loss tr(H_O D H_I D^T) (model-preserving adaptive
rounding).

H_O and H_I are Kronecker factors of the Fisher information, so the loss estimates KL(original ||
rounded) (arXiv:2505.22988). Strong output damping matters when curvature comes from few tokens:
`damp_output -> inf` is LDLQ. Cost: two Cholesky factorisations and m n (m + n) multiplications.
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
    """`damp` and `damp_output`: added to each factor's diagonal, in units of its mean diagonal.

    `input` chooses the input side: "gram", the second moment of the activations; "fisher", the
    input side of the Fisher information; or "mean", the mean of both at unit mean diagonal. The
    Fisher side is what the loss asks for, the Gram is estimated with less noise, and their mean
    gave less KL than either (docs/log.md). Factors without an output side are rounded with
    one-sided feedback.
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
        """The input side that `input` chooses; the Gram where the factors have no other."""
        if self.input == "gram" or factors.fisher_input is None:
            return factors.gram
        if self.input == "fisher":
            return factors.fisher_input
        return (normalise(factors.gram, name) + normalise(factors.fisher_input, name)) / 2

    def solve(
        self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix"
    ) -> RoundingResult:
        return solve_with_feedback(self, w, factors, format, name)
