"""The storage order of packed codes. A decoder works on vectors whose byte lanes belong to
different streams; in this order it can load such vectors without a shuffle.

Trellis. One byte lane holds one stream, which is a tile of 16 x 16 weights. Four adjacent lanes are
the same 16 rows at four tile columns, and a line of 64 lanes covers 16 such groups: 256 rows by 64
columns. The order is: for each row block of 256 rows, for each block of 64 columns, for each byte i
of the streams, one line, in which lane 4 * group + segment holds byte i of the tile (group, 4 *
block + segment). The last row block holds the remaining 4, 8 or 12 groups in lines of 16, 32 or 48
lanes: it is never padded to 64.

Integers. A row has four byte lanes, so a line of 64 bytes covers 16 rows. Codes are cut into bit
planes of 8, 4, 2 or 1 bits (`PLANES`; the first plane holds the lowest bits), and a plane of width
w has w lines for 32 columns. The order is: for each block of 16 rows, for each chunk of 32 columns,
for each plane, its lines. In a line, bits p w ... p w + w - 1 of byte 4 * row + b hold the plane of
column 32 chunk + (32 / w) line + 4 p + b. So one shift and one mask of a line give four adjacent
columns of 16 rows, ready for a dot product.

The functions here only permute bytes or bits; each is followed by its inverse.
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
    """The stored bytes of the streams of all tiles.

    Raises UsageError unless tile rows and tile columns are multiples of 4.
    """
    tile_rows, tile_columns, _ = streams.shape
    _check_tiles(tile_rows, tile_columns)
    row_blocks = []
    for block in streams.split(_GROUPS):
        segments = block.unflatten(1, (-1, 4))  # group, column block, segment, byte
        row_blocks.append(segments.permute(1, 3, 0, 2).reshape(-1))
    return torch.cat(row_blocks) if row_blocks else streams.reshape(-1)


def lanes_to_trellis(
    lanes: UInt8[Tensor, " total"], tile_rows: int, tile_columns: int
) -> UInt8[Tensor, "tile_rows tile_columns bytes"]:
    """The inverse of `trellis_to_lanes`.

    Raises UsageError when the bytes do not divide into that many tiles.
    """
    _check_tiles(tile_rows, tile_columns)
    tiles = tile_rows * tile_columns
    if not tiles or lanes.numel() % tiles:
        raise UsageError(f"{lanes.numel()} bytes are no {tile_rows} x {tile_columns} trellis tiles")
    size = lanes.numel() // tiles
    row_blocks = []
    for block in lanes.split(_GROUPS * tile_columns * size):
        lines = block.view(tile_columns // 4, size, -1, 4)
        row_blocks.append(lines.permute(2, 0, 3, 1).reshape(-1, tile_columns, size))
    return torch.cat(row_blocks)


def int_to_lanes(codes: UInt8[Tensor, "rows columns"], bits: int) -> UInt8[Tensor, " total"]:
    """The stored bytes of integer codes below 2^bits.

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
    """The inverse of `int_to_lanes`.

    Raises UsageError when the number of bytes is not rows * columns * bits / 8.
    """
    _check_codes(rows, columns, bits)
    if lanes.numel() * 8 != rows * columns * bits:
        raise UsageError(f"{lanes.numel()} bytes are no {rows} x {columns} codes of {bits} bits")
    lines = lanes.view(rows // 16, columns // 32, bits, 16, 4)
    codes = torch.zeros(rows // 16, 16, columns // 32, 32, dtype=torch.uint8, device=lanes.device)
    first_line, shift = 0, 0
    for width in PLANES[bits]:
        plane = lines[:, :, first_line : first_line + width].permute(0, 3, 1, 2, 4)
        fields = codes.view(rows // 16, 16, columns // 32, width, 8 // width, 4)
        for p in range(8 // width):
            fields[..., p, :] |= ((plane >> (p * width)) & ((1 << width) - 1)) << shift
        first_line, shift = first_line + width, shift + width
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
