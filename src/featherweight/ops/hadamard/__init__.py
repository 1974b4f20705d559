"""Orthonormal Hadamard rotations of every width: H_{2^p} (x) H_order, or diagonal blocks where n
has no such matrix.

576 = 16 * 36, 1536 = 128 * 12, 192 = 16 * 12 are single blocks; 210 is 208 + 2. A rotation of n numbers costs n p sums
and n * order products. Orders that are not symmetric exist (12, 20), so `transpose` matters.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from .. import library, paley
from . import native, reference


def blocks(n: int) -> tuple[int, ...]:
    """Sizes of the diagonal blocks of `matrix(n)`; (n,) where one block does.

    Raises UsageError for n < 1.
    """
    if n < 1:
        raise UsageError(f"a rotation of {n} numbers")
    return paley.blocks(n)


def matrix(n: int) -> Float[Tensor, "n n"]:
    """H_n in float64. Raises UsageError for n < 1."""
    blocks(n)
    return reference.matrix(n)


def transform(
    x: Float[Tensor, "*batch n"],
    transpose: bool = False,
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> Float[Tensor, "*batch n"]:
    """x H_n^T along the last axis (x H_n with `transpose`, the inverse), in the dtype of x.

    Native for float32 on a CPU without gradient, equal to `reference` to float32 rounding, and bit
    for bit the same on every instruction set and number of threads. Raises UsageError for an axis
    without numbers.
    """
    blocks(x.shape[-1])
    plain = (
        x.dtype != torch.float32
        or x.device.type != "cpu"
        or (x.requires_grad and torch.is_grad_enabled())
    )
    if isa == "reference" or plain or library.library() is None or not x.numel():
        return reference.transform(x, transpose)
    return native.transform(x, transpose, isa, threads)
