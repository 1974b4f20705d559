"""The reference of `ops.matmul`, in plain PyTorch on the device of the codes. `__init__` has
checked the arguments.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import lanes as order
from ..trellis import reference as trellis


def trellis_dense(
    lanes: Tensor,
    rows: int,
    columns: int,
    values: Tensor,
    L: int,
    k: int,
    scale: Tensor,
    isa: str | None = None,
    threads: int | None = None,
) -> Tensor:
    """(rows, columns) float32 = scale * values[state]."""
    if not lanes.numel():
        return torch.empty(rows, columns, device=lanes.device)
    streams = order.lanes_to_trellis(lanes, rows // 16, columns // 16)
    tiles = trellis.decode(streams.flatten(0, 1), values.to(lanes.device), L, k)
    dense = tiles.view(rows // 16, columns // 16, 16, 16).transpose(1, 2).reshape(rows, columns)
    return dense * scale[:, None]


def int_dense(
    lanes: Tensor,
    rows: int,
    columns: int,
    bits: int,
    group: int,
    scale: Tensor,
    zero: Tensor,
    indices: Tensor | None = None,
    isa: str | None = None,
    threads: int | None = None,
) -> Tensor:
    """(rows or indices, columns) float32 = scale * (code - zero)."""
    codes = order.lanes_to_int(lanes, rows, columns, bits).float()
    groups = torch.arange(columns, device=lanes.device) // group
    # (row blocks, groups, 16) -> (rows, columns)
    scales, zeros = (tensor.transpose(1, 2).flatten(0, 1)[:, groups] for tensor in (scale, zero))
    dense = scales * (codes - zeros)
    return dense if indices is None else dense[indices]
