"""Decodes weights in lane order (`ops.lanes`) to a dense matrix.

Every value is one float32 product, scale * table[state] or scale * (code - zero), so the native
library gives the same bits as the reference on every instruction set.
"""

from __future__ import annotations

from types import ModuleType

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from ...base.errors import UsageError
from .. import library, trellis
from . import native, reference


def trellis_dense(
    lanes: UInt8[Tensor, " bytes"],
    rows: int,
    columns: int,
    values: Float[Tensor, " states"],
    L: int,
    k: int,
    scale: Float[Tensor, " rows"],
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> Float[Tensor, "rows columns"]:
    """The float32 matrix (rows, columns) of trellis codes, row r multiplied by scale[r].

    Args: lanes, the stored bytes of 16 x 16 tiles; values, the value of each of the 2^L states of L
    bits; k, bits of a weight; scale, in any float dtype; isa, one of scalar, avx2, avx512,
    reference (None: the best); threads, their number for this call. The result is on the device of
    `lanes`. Raises UsageError unless rows and columns are multiples of 64 and all sizes agree.
    """
    trellis.check(256, values, L, k)
    if (
        rows % 64
        or columns % 64
        or lanes.numel() * 8 != rows * columns * k
        or lanes.dtype != torch.uint8
    ):
        raise UsageError(
            f"{lanes.numel()} bytes of {lanes.dtype} are no {rows} x {columns} weights of {k} bits "
            "in lane order"
        )
    if scale.shape != (rows,):
        raise UsageError(f"scale is {tuple(scale.shape)}; need ({rows},)")
    implementation = _implementation(lanes, isa)
    return implementation.trellis_dense(
        lanes, rows, columns, values, L, k, scale.float(), isa, threads
    )


def int_dense(
    lanes: UInt8[Tensor, " bytes"],
    rows: int,
    columns: int,
    bits: int,
    group: int,
    scale: Float[Tensor, "row_blocks groups 16"],
    zero: Tensor | None = None,
    *,
    indices: Int64[Tensor, " count"] | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> Float[Tensor, "count columns"]:
    """The float32 matrix of integer codes: scale * (code - zero), where `group` columns of a row
    share a scale and a zero point.

    Args: scale and zero (any dtype; None: 2^(bits - 1)) in blocks of 16 rows, (rows / 16,
    ceil(columns / group), 16); indices, the rows to decode, in this order (a look-up in an
    embedding), None for all; isa and threads as in `trellis_dense`. The result is on the device of
    `lanes`. Raises UsageError unless rows % 16 == 0, columns % 32 == 0 and all sizes agree.
    """
    if (
        rows % 16
        or columns % 32
        or lanes.numel() * 8 != rows * columns * bits
        or lanes.dtype != torch.uint8
    ):
        raise UsageError(
            f"{lanes.numel()} bytes of {lanes.dtype} are no {rows} x {columns} codes of "
            f"{bits} bits in lane order"
        )
    if bits not in range(2, 9) or group < 1:
        raise UsageError(f"{bits} bits in groups of {group}; need 2 to 8 bits and a positive group")
    shape = (rows // 16, -(-columns // group), 16)
    if scale.shape != shape or (zero is not None and zero.shape != shape):
        shapes = [tuple(tensor.shape) for tensor in (scale, zero) if tensor is not None]
        raise UsageError(f"scale and zero are {shapes}; need {shape}")
    if (
        indices is not None
        and indices.numel()
        and not 0 <= int(indices.min()) <= int(indices.max()) < rows
    ):
        raise UsageError(
            f"row indices {int(indices.min())} to {int(indices.max())} of a matrix of {rows} rows"
        )
    zeros = (
        torch.full_like(scale, 2.0 ** (bits - 1), dtype=torch.float32)
        if zero is None
        else zero.float()
    )
    implementation = _implementation(lanes, isa)
    return implementation.int_dense(
        lanes, rows, columns, bits, group, scale.float(), zeros, indices, isa, threads
    )


def _implementation(lanes: Tensor, isa: str | None) -> ModuleType:
    if (
        isa == "reference"
        or not lanes.numel()
        or lanes.device.type != "cpu"
        or library.library() is None
    ):
        return reference
    return native
