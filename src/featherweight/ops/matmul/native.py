"""The native implementation of `ops.matmul`. `__init__` has checked the arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from ..library import check, encode_isa, library, pointer


def trellis_dense(
    lanes: Tensor,
    rows: int,
    columns: int,
    values: Tensor,
    L: int,
    k: int,
    scale: Tensor,
    isa: str | None,
    threads: int | None,
) -> Tensor:
    """(rows, columns) float32 = scale * values[state]."""
    lanes, values, scale = (
        lanes.contiguous(),
        values.detach().cpu().contiguous(),
        scale.detach().contiguous(),
    )
    out = torch.empty(rows, columns, dtype=torch.float32, device=lanes.device)
    native = library()
    assert native is not None
    status = native.fw_trellis_dense(
        pointer(lanes),
        rows,
        columns,
        pointer(values),
        L,
        k,
        pointer(scale),
        encode_isa(isa),
        threads or 0,
        pointer(out),
    )
    check(status, f"decoding {rows} x {columns} trellis weights")
    return out


def int_dense(
    lanes: Tensor,
    rows: int,
    columns: int,
    bits: int,
    group: int,
    scale: Tensor,
    zero: Tensor,
    indices: Tensor | None,
    isa: str | None,
    threads: int | None,
) -> Tensor:
    """(rows or indices, columns) float32 = scale * (code - zero)."""
    lanes, scale, zero = lanes.contiguous(), scale.detach().contiguous(), zero.detach().contiguous()
    indices = None if indices is None else indices.contiguous()
    count = rows if indices is None else indices.numel()
    out = torch.empty(count, columns, dtype=torch.float32, device=lanes.device)
    native = library()
    assert native is not None
    status = native.fw_int_dense(
        pointer(lanes),
        rows,
        columns,
        bits,
        pointer(scale),
        pointer(zero),
        group,
        None if indices is None else pointer(indices),
        count,
        encode_isa(isa),
        threads or 0,
        pointer(out),
    )
    check(status, f"decoding {count} rows of {rows} x {columns} integer weights")
    return out
