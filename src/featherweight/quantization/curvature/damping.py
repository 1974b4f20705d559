"""Makes a noisy curvature factor positive definite: it is scaled to unit mean diagonal, then
damped.

Damping adds a number to the diagonal. The number grows by factors of ten until the Cholesky
factorisation succeeds. When 1 (or the first number, if that is larger) is not enough, BadInput
names the layer; the factor is never silently replaced by another one. All arithmetic is in float64.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import BadInput


def normalise(h: Float[Tensor, "n n"], name: str) -> Float[Tensor, "n n"]:
    """The symmetric part of `h`, divided by its mean diagonal, in float64.

    A factor of zeros (inputs that are always zero) stays zero. Raises BadInput when `h` is not
    finite.
    """
    h = h.double()
    h = (h + h.T) / 2
    mean = float(h.diagonal().mean())
    if mean != mean or mean in (float("inf"), float("-inf")):
        raise BadInput(f"{name}: curvature is not finite; an activation or gradient overflowed")
    return h / mean if mean > 0 else h


def damp(h: Float[Tensor, "n n"], sigma: float, name: str) -> tuple[Float[Tensor, "n n"], float]:
    """(h + d I, d) for the first d of sigma, 10 sigma, 100 sigma ... that makes it positive
    definite.

    Raises BadInput when d = max(1, sigma) is not enough.
    """
    damping = sigma
    limit = max(1.0, sigma)
    identity = torch.eye(h.shape[0], dtype=h.dtype, device=h.device)
    while True:
        matrix = h + damping * identity
        if int(torch.linalg.cholesky_ex(matrix).info) == 0:
            return matrix, damping
        if damping >= limit:
            raise BadInput(
                f"{name}: curvature is not positive definite even with damping {damping:g}; "
                "recollect it"
            )
        damping = min(limit, max(damping, 1e-6) * 10)
