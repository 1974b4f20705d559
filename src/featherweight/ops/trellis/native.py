"""The native implementation of `ops.trellis`. `__init__` has checked the arguments."""

from __future__ import annotations

import torch
from torch import Tensor

from ..library import check, encode_isa, library, pointer
from .reference import SCALE


def encode(
    x: Tensor, values: Tensor, L: int, k: int, isa: str | None, threads: int | None
) -> Tensor:
    """(tiles, T) float32 -> (tiles, k T / 8) uint8."""
    x, values = x.detach().contiguous(), values.detach().cpu().contiguous()
    tiles, length = x.shape
    out = torch.empty(tiles, k * length // 8, dtype=torch.uint8, device=x.device)
    native = library()
    assert native is not None
    status = native.fw_viterbi_encode(
        pointer(x),
        tiles,
        length,
        pointer(values),
        L,
        k,
        SCALE[k],
        encode_isa(isa),
        threads or 0,
        pointer(out),
    )
    check(status, f"encoding {tiles} tiles of {length} samples (L={L}, k={k})")
    return out


def decode(
    streams: Tensor, values: Tensor, L: int, k: int, isa: str | None, threads: int | None
) -> Tensor:
    """(tiles, k T / 8) uint8 -> (tiles, T) float32."""
    streams, values = streams.contiguous(), values.detach().cpu().contiguous()
    tiles = streams.shape[0]
    length = 8 * streams.shape[1] // k
    out = torch.empty(tiles, length, dtype=torch.float32, device=streams.device)
    native = library()
    assert native is not None
    status = native.fw_trellis_decode(
        pointer(streams),
        tiles,
        length,
        pointer(values),
        L,
        k,
        encode_isa(isa),
        threads or 0,
        pointer(out),
    )
    check(status, f"decoding {tiles} streams of {length} samples (L={L}, k={k})")
    return out
