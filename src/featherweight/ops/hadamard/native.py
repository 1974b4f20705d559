"""The rotation in the native library: float32 on a CPU, in place on a copy."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..library import check, chosen, library, pointer
from . import reference
from .construction import blocks, factors


@cache
def _plan(n: int, transpose: bool) -> tuple[int, int, Tensor | None]:
    """(power, order, right factor of a row block) of a size that has a matrix.

    Four butterflies between neighbours do not fill a vector, so a pure power of two multiplies blocks of 16 instead.
    """
    found = factors(n)
    assert found is not None
    power, order = found
    if order == 1:
        taken = min(power, 4)
        power, order, kernel = power - taken, 1 << taken, reference.matrix(1 << taken)
    else:
        kernel = reference.kernel(order)
    right = kernel if transpose else kernel.T
    return power, order, None if order == 1 else right.float().contiguous()


def transform(x: Tensor, transpose: bool, isa: str | None, threads: int | None) -> Tensor:
    """x H^T, or x H with `transpose`; float32 on a CPU."""
    n = x.shape[-1]
    out = x.detach().clone(memory_format=torch.contiguous_format)
    sizes = blocks(n)
    if len(set(sizes)) == 1:
        _rotate(out, 0, out.numel() // sizes[0], sizes[0], sizes[0], transpose, isa, threads)
        return out
    start = 0
    for size in sizes:
        _rotate(out, start, out.numel() // n, n, size, transpose, isa, threads)
        start += size
    return out


def _rotate(
    out: Tensor, start: int, rows: int, stride: int, size: int, transpose: bool, isa: str | None, threads: int | None
) -> None:
    power, order, kernel = _plan(size, transpose)
    native = library()
    assert native is not None
    status = native.fw_hadamard(
        pointer(out) + 4 * start,
        rows,
        stride,
        power,
        order,
        None if kernel is None else pointer(kernel),
        chosen(isa),
        threads or 0,
    )
    check(status, f"rotating {rows} rows of {size}")
