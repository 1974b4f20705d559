"""Make a noisy factor usable: scale it to unit mean diagonal, then add to the diagonal until
Cholesky succeeds.

A factor is never replaced: damping grows by ten until it works, and beyond sigma = 1 (or the start,
if larger) the solve fails and names the layer. float64 throughout.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import BadInput


def normalise(h: Float[Tensor, "n n"], name: str) -> Float[Tensor, "n n"]:
    """Symmetrised, divided by its mean diagonal, float64.

    An all-zero factor (dead inputs) becomes zero.
    """
    h = h.double()
    h = (h + h.T) / 2
    mean = float(h.diagonal().mean())
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise BadInput(f"{name}: curvature is not finite; an activation or gradient overflowed")
    return h / mean if mean > 0 else h


def damp(h: Float[Tensor, "n n"], sigma: float, name: str) -> tuple[Float[Tensor, "n n"], float]:
    """h + sigma I for the smallest sigma, sigma * 10, sigma * 100 ... that is positive definite,
    and that sigma.
    """
    used = sigma
    limit = max(1.0, sigma)
    identity = torch.eye(h.shape[0], dtype=h.dtype, device=h.device)
    while True:
        damped = h + used * identity
        if int(torch.linalg.cholesky_ex(damped).info) == 0:
            return damped, used
        if used >= limit:
            raise BadInput(
                f"{name}: curvature is not positive definite even with damping {used:g}; recollect it"
            )
        used = min(limit, max(used, 1e-6) * 10)
