"""Orthonormal Hadamard rotations of every width n: H_{2^p} (x) H_order, or a block-diagonal matrix
when n has no such matrix.

576 = 16 * 36, 1536 = 128 * 12 and 192 = 16 * 12 are single blocks; 210 has the blocks 208 and 2. A
rotation of n numbers costs n p additions and n * order multiplications. The matrices of some orders
(12, 20) are not symmetric, so the inverse needs `transpose`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import UsageError
from .. import library, paley
from . import native, reference


def blocks(n: int) -> tuple[int, ...]:
    """Sizes of the diagonal blocks of `matrix(n)`; (n,) when it is a single block.

    Raises UsageError for n < 1.
    """
    if n < 1:
        raise UsageError(f"a rotation of {n} numbers")
    return paley.blocks(n)


def matrix(n: int) -> Float[Tensor, "n n"]:
    """H_n in float64 on the CPU. Raises UsageError for n < 1."""
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

    Args: isa, one of scalar, avx2, avx512, reference (None: the best); threads, their number for
    this call. float32 on a CPU without gradient is computed by the native library; the result
    equals that of the reference up to float32 rounding, and does not depend on the instruction set
    or the number of threads. Everything else is computed by the reference. Raises UsageError for an
    empty axis.
    """
    blocks(x.shape[-1])
    if not _is_native(x, isa):
        return reference.transform(x, transpose)
    return native.transform(x, transpose, isa, threads)


def _is_native(x: Tensor, isa: str | None) -> bool:
    return (
        isa != "reference"
        and x.dtype == torch.float32
        and x.device.type == "cpu"
        and not (x.requires_grad and torch.is_grad_enabled())
        and x.numel() > 0
        and library.library() is not None
    )
