"""The rotation in the native library, for float32 on a CPU. The library rotates a copy in place."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from ..library import check, encode_isa, library, pointer
from ..paley import blocks, factorization


@cache
def _factorization(n: int, transpose: bool) -> tuple[int, int, Tensor | None]:
    power, order, factor = factorization(n, transpose)
    return power, order, None if factor is None else torch.from_numpy(factor)


def transform(x: Tensor, transpose: bool, isa: str | None, threads: int | None) -> Tensor:
    """x H^T, or x H with `transpose`; float32 on a CPU."""
    n = x.shape[-1]
    out = x.detach().clone(memory_format=torch.contiguous_format)
    sizes = blocks(n)
    if len(set(sizes)) == 1:
        # Blocks of equal size are the rows of one long array, which one call rotates.
        _rotate(out, 0, out.numel() // sizes[0], sizes[0], sizes[0], transpose, isa, threads)
        return out
    start = 0
    for size in sizes:
        _rotate(out, start, out.numel() // n, n, size, transpose, isa, threads)
        start += size
    return out


def _rotate(
    out: Tensor,
    start: int,
    rows: int,
    stride: int,
    size: int,
    transpose: bool,
    isa: str | None,
    threads: int | None,
) -> None:
    """Rotate `size` numbers in each of `rows` rows of `stride`, from number `start` of a row on."""
    power, order, kernel = _factorization(size, transpose)
    native = library()
    assert native is not None
    status = native.fw_hadamard(
        pointer(out) + 4 * start,
        rows,
        stride,
        power,
        order,
        None if kernel is None else pointer(kernel),
        encode_isa(isa),
        threads or 0,
    )
    check(status, f"rotating {rows} rows of {size}")
