"""The storage order, byte by byte and bit by bit against the sentences that define it."""

from __future__ import annotations

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.ops import lanes


@pytest.mark.parametrize(
    ("rows", "columns"), [(64, 64), (192, 128), (256, 64), (320, 64), (576, 192)]
)
@pytest.mark.parametrize("k", [1, 3])
def test_trellis_order(rows: int, columns: int, k: int) -> None:
    tile_rows, tile_columns, size = rows // 16, columns // 16, 32 * k
    streams = torch.randint(0, 256, (tile_rows, tile_columns, size), dtype=torch.uint8)
    expected_bytes = []
    for block in range(0, tile_rows, 16):
        groups = min(16, tile_rows - block)
        for j in range(tile_columns // 4):
            for i in range(size):
                for lane in range(4 * groups):
                    group, segment = divmod(lane, 4)
                    expected_bytes.append(int(streams[block + group, 4 * j + segment, i]))
    lane_bytes = lanes.trellis_to_lanes(streams)
    assert lane_bytes.tolist() == expected_bytes
    assert lane_bytes.numel() * 8 == rows * columns * k
    assert torch.equal(lanes.lanes_to_trellis(lane_bytes, tile_rows, tile_columns), streams)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize(("rows", "columns"), [(16, 32), (48, 96)])
def test_int_order(bits: int, rows: int, columns: int) -> None:
    codes = torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8)
    lane_bytes = lanes.int_to_lanes(codes, bits)
    assert lane_bytes.numel() * 8 == rows * columns * bits
    position = 0
    for block in range(rows // 16):
        for chunk in range(columns // 32):
            shift = 0
            for width in lanes.PLANES[bits]:
                for line in range(width):
                    for lane in range(64):
                        row, b = divmod(lane, 4)
                        byte = 0
                        for p in range(8 // width):
                            code = int(
                                codes[
                                    16 * block + row, 32 * chunk + line * (32 // width) + 4 * p + b
                                ]
                            )
                            byte |= (code >> shift & ((1 << width) - 1)) << (p * width)
                        assert int(lane_bytes[position]) == byte
                        position += 1
                shift += width
    assert torch.equal(lanes.lanes_to_int(lane_bytes, rows, columns, bits), codes)


def test_planes_add_up() -> None:
    assert all(sum(planes) == bits for bits, planes in lanes.PLANES.items())


def test_impossible_shapes_are_errors() -> None:
    codes = torch.zeros(16, 32, dtype=torch.uint8)
    with pytest.raises(UsageError, match="multiples of 64"):
        lanes.trellis_to_lanes(torch.zeros(4, 3, 64, dtype=torch.uint8))
    with pytest.raises(UsageError, match="no 4 x 4 trellis tiles"):
        lanes.lanes_to_trellis(torch.zeros(65, dtype=torch.uint8), 4, 4)
    with pytest.raises(UsageError, match="multiple of 16"):
        lanes.int_to_lanes(codes[:15], 4)
    with pytest.raises(UsageError, match="9 bits"):
        lanes.int_to_lanes(codes, 9)
    with pytest.raises(UsageError, match="no 16 x 32 codes"):
        lanes.lanes_to_int(torch.zeros(255, dtype=torch.uint8), 16, 32, 4)
