"""Whether the output side helps a layer, measured on held-out sequences before anything is rounded.

With feedback the error is D = -L_O^-T N L_I^-1 for a rounding noise N that is white with one
variance a row. A held-out sequence with gradient G adds <D, G>^2 to vec(D)^T F vec(D), and over the
noise

    E <D, G>^2 = sum_r s_r^2 || (L_O^-1 G L_I^-T)_r ||^2,        s_r the rms of row r of N,

which is exact: no candidate has to be rounded, and factors are judged on sequences that they were
not collected from. LDLQ is L_O = I. A noisy H_O (from few tokens, or of a first down_proj whose
gradients a few sink tokens dominate) has a larger expectation, and is refused. Cost, in the dual
form: T (m^2 + n^2) + T^2 (m + n) multiplications for each sequence.
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
    """The expectation above for every sequence; `lower_*` are L - I, `row_scale` s_r (its unit
    drops out of ratios).
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
