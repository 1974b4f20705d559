"""The expected loss of a layer on held-out sequences, which shows before rounding whether its
output side helps.

Rounding with feedback has the error D = -L_O^-T N L_I^-1. N is the rounding noise, which is white
with one variance for each row. A held-out sequence with the gradient G adds <D, G>^2 to the loss
vec(D)^T F vec(D), where F is the Fisher information. Its expectation over the noise is exactly

    E <D, G>^2 = sum_r s_r^2 || (L_O^-1 G L_I^-T)_r ||^2,        s_r the rms of row r of N.

So the factors can be compared without rounding anything, and on sequences that they were not
collected from. One-sided feedback (LDLQ) is the case L_O = I. A noisy H_O has a larger expected
loss and is then not used. H_O is noisy when it comes from few tokens, or when a few attention-sink
tokens dominate the gradients, as in the first down_proj. Cost, in the dual form:
T (m^2 + n^2) + T^2 (m + n) multiplications for each sequence of T tokens.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def expected_loss(
    x: Float[Tensor, "batch seq n"],
    g: Float[Tensor, "batch seq m"],
    row_scale: Float[Tensor, " m"],
    lower_in: Float[Tensor, "n n"],
    lower_out: Float[Tensor, "m m"] | None,
) -> Float[Tensor, " batch"]:
    """The expectation above for every sequence.

    x, g: inputs and output gradients. row_scale: s_r in any unit, because only ratios of the
    results are used. lower_in, lower_out: L - I of both factors; None for the identity.
    """
    (batch, t, n), m = x.shape, g.shape[-1]
    inputs = _solve(lower_in, x.reshape(-1, n).T).view(n, batch, t).permute(1, 2, 0)
    outputs = g
    if lower_out is not None:
        outputs = _solve(lower_out, g.reshape(-1, m).T).view(m, batch, t).permute(1, 2, 0)
    kernel = inputs @ inputs.transpose(1, 2)
    per_row = ((kernel @ outputs) * outputs).sum(1, dtype=torch.float64)
    return (per_row * row_scale.double().square()).sum(-1).float()


def _solve(lower: Tensor, right: Tensor) -> Tensor:
    full = lower + torch.eye(lower.shape[0], device=lower.device)
    return torch.linalg.solve_triangular(full, right, upper=False, unitriangular=True)
