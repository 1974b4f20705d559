"""The storage order of packed codes: what a decoder with one stream in every byte of a vector wants
to read.

Trellis. One byte lane holds one stream, a 16 x 16 tile. Four lanes side by side are the same 16
rows at four tile columns, and a line of 64 lanes covers 16 such groups, 256 rows by 64 columns. For
each row block of 256 rows, for each block of 64 columns, for each byte i of the streams: lane 4 *
group + segment holds byte i of the tile (group, 4 * block + segment). The last row block holds what
is left, 4, 8 or 12 groups, in lines of 16, 32 or 48 lanes: it is never padded to 64.

Integers. A row is four byte lanes; a line of 64 bytes covers 16 rows. Codes are cut into bit planes
of 8, 4, 2 or 1 bits (`PLANES`, the first holds the lowest bits), and a plane of width w has w lines
for 32 columns. For each block of
16 rows, each chunk of 32 columns, each plane, each of its lines: byte 4 * row + b holds in bits p w ... p w + w - 1 the
plane of column 32 chunk + (32 / w) line + 4 p + b. So a line shifted and masked once holds four
adjacent columns of 16 rows, ready for a dot product.

These are layouts only: every function permutes bytes or bits and has its inverse beside it.
"""

from __future__ import annotations

import torch
from jaxtyping import UInt8
from torch import Tensor

from ..base.errors import UsageError

PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 7: (4, 2, 1), 8: (8,)}
_GROUPS = 16  # groups of 16 rows in a full row block of trellis tiles


def trellis_to_lanes(
    streams: UInt8[Tensor, "tile_rows tile_columns bytes"],
) -> UInt8[Tensor, " total"]:
    """Streams of all tiles -> stored bytes.

    Raises UsageError unless tile rows and columns are multiples of 4.
    """
    tile_rows, tile_columns, _ = streams.shape
    _check_tiles(tile_rows, tile_columns)
    parts = []
    for block in streams.split(_GROUPS):
        split = block.unflatten(1, (-1, 4))  # group, column block, segment, byte
        parts.append(split.permute(1, 3, 0, 2).reshape(-1))
    return torch.cat(parts) if parts else streams.reshape(-1)


def lanes_to_trellis(
    lanes: UInt8[Tensor, " total"], tile_rows: int, tile_columns: int
) -> UInt8[Tensor, "tile_rows tile_columns bytes"]:
    """The inverse. Raises UsageError when the bytes do not divide into that many tiles."""
    _check_tiles(tile_rows, tile_columns)
    tiles = tile_rows * tile_columns
    if not tiles or lanes.numel() % tiles:
        raise UsageError(f"{lanes.numel()} bytes are no {tile_rows} x {tile_columns} trellis tiles")
    size = lanes.numel() // tiles
    parts = []
    for part in lanes.split(_GROUPS * tile_columns * size):
        lines = part.view(tile_columns // 4, size, -1, 4)
        parts.append(lines.permute(2, 0, 3, 1).reshape(-1, tile_columns, size))
    return torch.cat(parts)


def int_to_lanes(codes: UInt8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, " total"]:
    """Codes below 2^bits -> stored bytes.

    Raises UsageError unless rows % 16 == 0 and columns % 32 == 0.
    """
    rows, columns = codes.shape
    _check_codes(rows, columns, bits)
    planes, shift = [], 0
    for width in PLANES[bits]:
        plane = (codes >> shift) & ((1 << width) - 1)
        # row block, row, chunk, line, field, b
        fields = plane.view(rows // 16, 16, columns // 32, width, 8 // width, 4)
        line = fields[..., 0, :].clone()
        for p in range(1, 8 // width):
            line |= fields[..., p, :] << (p * width)
        planes.append(line.permute(0, 2, 3, 1, 4).reshape(rows // 16, columns // 32, width * 64))
        shift += width
    return torch.cat(planes, -1).reshape(-1)


def lanes_to_int(
    lanes: UInt8[Tensor, " total"], rows: int, columns: int, bits: int
) -> UInt8[Tensor, "rows columns"]:
    """The inverse. Raises UsageError when the number of bytes is not rows * columns * bits / 8."""
    _check_codes(rows, columns, bits)
    if lanes.numel() * 8 != rows * columns * bits:
        raise UsageError(f"{lanes.numel()} bytes are no {rows} x {columns} codes of {bits} bits")
    lines = lanes.view(rows // 16, columns // 32, bits, 16, 4)
    codes = torch.zeros(rows // 16, 16, columns // 32, 32, dtype=torch.uint8, device=lanes.device)
    first, shift = 0, 0
    for width in PLANES[bits]:
        plane = lines[:, :, first : first + width].permute(0, 3, 1, 2, 4)
        fields = codes.view(rows // 16, 16, columns // 32, width, 8 // width, 4)
        for p in range(8 // width):
            fields[..., p, :] |= ((plane >> (p * width)) & ((1 << width) - 1)) << shift
        first, shift = first + width, shift + width
    return codes.view(rows, columns)


def _check_tiles(tile_rows: int, tile_columns: int) -> None:
    if tile_rows % 4 or tile_columns % 4:
        raise UsageError(
            f"{tile_rows} x {tile_columns} trellis tiles; pad rows and columns to multiples of 64"
        )


def _check_codes(rows: int, columns: int, bits: int) -> None:
    if bits not in PLANES:
        raise UsageError(f"{bits} bits a code; integers have 2 to 8")
    if rows % 16 or columns % 32:
        raise UsageError(
            f"{rows} x {columns} codes; pad rows to a multiple of 16 and columns to one of 32"
        )
