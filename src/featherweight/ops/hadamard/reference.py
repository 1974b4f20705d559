"""The definition of the rotation: y_i = sum_j H[i, j] x_j, block by block, in the dtype of x and on
its device.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..paley import blocks, factors, signs


@cache
def kernel(order: int) -> Tensor:
    """The orthonormal H_order, float64 on the CPU. It is cached, so callers must not change it."""
    return torch.from_numpy(signs(order) / order**0.5)


def matrix(n: int) -> Tensor:
    """H_n as (n, n) float64 on the CPU: block-diagonal, each block H_{2^p} (x) H_order."""
    butterfly = torch.tensor([[1, 1], [1, -1]], dtype=torch.float64, device="cpu") / 2**0.5
    diagonal = []
    for size in blocks(n):
        power, order = _factors(size)
        block = kernel(order)
        for _ in range(power):
            block = torch.kron(butterfly, block)
        diagonal.append(block)
    return torch.block_diag(*diagonal)


def transform(x: Tensor, transpose: bool = False) -> Tensor:
    """x H^T, or x H with `transpose`, along the last axis."""
    rotated_blocks = [_rotate_block(block, transpose) for block in x.split(blocks(x.shape[-1]), -1)]
    return rotated_blocks[0] if len(rotated_blocks) == 1 else torch.cat(rotated_blocks, -1)


def _rotate_block(x: Tensor, transpose: bool) -> Tensor:
    power, order = _factors(x.shape[-1])
    y = x.reshape(-1, 1 << power, order)
    for _ in range(power):
        # The two halves of the axis are replaced by their sums and differences, which are
        # interleaved. After `power` passes every index is at its original place again.
        a, b = y.chunk(2, 1)
        y = torch.stack((a + b, a - b), 2).flatten(1, 2)
    if order > 1:
        h = kernel(order).to(y)
        y = y @ (h if transpose else h.T)
    return (y * 2 ** (-power / 2)).reshape(x.shape)


def _factors(size: int) -> tuple[int, int]:
    """(power, order) of a block, which always has a matrix."""
    power_and_order = factors(size)
    assert power_and_order is not None
    return power_and_order
