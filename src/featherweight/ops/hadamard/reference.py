"""The definition of the rotation: y_i = sum_j H[i, j] x_j, block by block, in the dtype of x."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..paley import blocks, factors, signs


@cache
def kernel(order: int) -> Tensor:
    """The orthonormal H_order, float64; not to be written to."""
    return torch.from_numpy(signs(order) / order**0.5)


def matrix(n: int) -> Tensor:
    """H_n as (n, n) float64: block-diagonal, each block H_{2^p} (x) H_order."""
    parts = []
    for size in blocks(n):
        found = factors(size)
        assert found is not None
        power, order = found
        part = kernel(order)
        for _ in range(power):
            part = torch.kron(torch.tensor([[1, 1], [1, -1]], dtype=torch.float64) / 2**0.5, part)
        parts.append(part)
    return torch.block_diag(*parts)


def transform(x: Tensor, transpose: bool = False) -> Tensor:
    """x H^T, or x H with `transpose`, along the last axis."""
    parts = [_block(part, transpose) for part in x.split(blocks(x.shape[-1]), -1)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def _block(x: Tensor, transpose: bool) -> Tensor:
    found = factors(x.shape[-1])
    assert found is not None
    power, order = found
    y = x.reshape(-1, 1 << power, order)
    for _ in range(power):
        # Halves become sums and differences and move to the end; after all turns every axis is back
        # in its place.
        a, b = y.chunk(2, 1)
        y = torch.stack((a + b, a - b), 2).flatten(1, 2)
    if order > 1:
        h = kernel(order).to(y)
        y = y @ (h if transpose else h.T)
    return (y * 2 ** (-power / 2)).reshape(x.shape)
