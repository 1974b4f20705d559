"""Reading weights in lane order: native equals reference in every bit, over tails, groups and
instruction sets.
"""

from __future__ import annotations

import math

import pytest
import torch
from tests.ops.tables import gaussian

from featherweight.ops import lanes, library, matmul, trellis

ISAS = library.available()
needs_native = pytest.mark.skipif(library.library() is None, reason="no native library")


def stored_trellis(rows: int, columns: int, k: int) -> tuple[torch.Tensor, torch.Tensor]:
    streams = torch.randint(0, 256, (rows // 16, columns // 16, 32 * k), dtype=torch.uint8)
    return lanes.trellis_to_lanes(streams), streams


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_trellis_dense_is_tiles_row_by_row(k: int) -> None:
    rows, columns, L, values = 320, 128, 10, gaussian(10)
    lane_bytes, streams = stored_trellis(rows, columns, k)
    scale = torch.rand(rows).half()
    dense = matmul.trellis_dense(lane_bytes, rows, columns, values, L, k, scale)
    for i, j in ((0, 0), (3, 5), (16, 0), (19, 7)):
        tile = trellis.decode(streams[i, j][None], values, L, k, isa="reference").view(16, 16)
        part = dense[16 * i : 16 * i + 16, 16 * j : 16 * j + 16]
        assert torch.equal(part, tile * scale[16 * i : 16 * i + 16, None].float())


@needs_native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("rows", "columns", "L"), [(64, 64, 8), (192, 64, 16), (256, 128, 12), (448, 192, 13)]
)
def test_trellis_dense_equals_reference(isa: str, k: int, rows: int, columns: int, L: int) -> None:
    lane_bytes, values, scale = stored_trellis(rows, columns, k)[0], gaussian(L), torch.rand(rows)
    reference = matmul.trellis_dense(
        lane_bytes, rows, columns, values, L, k, scale, isa="reference"
    )
    for threads in (1, 3):
        dense = matmul.trellis_dense(
            lane_bytes, rows, columns, values, L, k, scale, isa=isa, threads=threads
        )
        assert torch.equal(dense, reference)
    odd_address = torch.cat([lane_bytes[:1], lane_bytes])[1:]
    assert torch.equal(
        matmul.trellis_dense(odd_address, rows, columns, values, L, k, scale, isa=isa), reference
    )


@needs_native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("group", [7, 32, 48, 96, 1000])
def test_int_dense_equals_reference(isa: str, bits: int, group: int) -> None:
    rows, columns = 48, 96
    lane_bytes = lanes.int_to_lanes(
        torch.randint(0, 1 << bits, (rows, columns), dtype=torch.uint8), bits
    )
    scale_shape = rows // 16, -(-columns // group), 16
    scale, zero = (
        torch.rand(scale_shape).half(),
        torch.randint(0, 1 << bits, scale_shape, dtype=torch.uint8),
    )
    indices = torch.tensor([47, 0, 17, 17])
    for zeros in (zero, None):
        reference = matmul.int_dense(
            lane_bytes, rows, columns, bits, group, scale, zeros, isa="reference"
        )
        for threads in (1, 3):
            dense = matmul.int_dense(
                lane_bytes, rows, columns, bits, group, scale, zeros, isa=isa, threads=threads
            )
            assert torch.equal(dense, reference)
        dense = matmul.int_dense(
            lane_bytes, rows, columns, bits, group, scale, zeros, indices=indices, isa=isa
        )
        assert torch.equal(dense, reference[indices])


def test_int_dense_is_scale_times_code_minus_zero() -> None:
    bits, rows, columns, group = 3, 32, 64, 16
    codes = torch.randint(0, 8, (rows, columns), dtype=torch.uint8)
    scale, zero = torch.rand(2, 4, 16), torch.randint(0, 8, (2, 4, 16), dtype=torch.uint8)
    dense = matmul.int_dense(
        lanes.int_to_lanes(codes, bits), rows, columns, bits, group, scale, zero
    )
    for r, c in ((0, 0), (5, 17), (16, 40), (31, 63)):
        s, z = scale[r // 16, c // group, r % 16], zero[r // 16, c // group, r % 16]
        assert dense[r, c] == s * (int(codes[r, c]) - int(z))


@needs_native
@pytest.mark.parametrize("isa", ISAS)
def test_every_number_is_written_and_none_beyond(isa: str) -> None:
    native, name, guard = library.library(), isa.encode(), 64
    assert native is not None
    rows, columns, k, L = 128, 64, 2, 9
    lane_bytes, values, scale = stored_trellis(rows, columns, k)[0], gaussian(L), torch.rand(rows)
    out = torch.full((rows * columns + guard,), math.nan)
    arguments = (
        lane_bytes.data_ptr(),
        rows,
        columns,
        values.data_ptr(),
        L,
        k,
        scale.data_ptr(),
        name,
        2,
        out.data_ptr(),
    )
    assert native.fw_trellis_dense(*arguments) == 0
    reference = matmul.trellis_dense(
        lane_bytes, rows, columns, values, L, k, scale, isa="reference"
    )
    assert torch.equal(out[:-guard].view(rows, columns), reference)
    assert out[-guard:].isnan().all()


def test_nothing_decodes_to_nothing() -> None:
    empty = torch.empty(0, dtype=torch.uint8)
    assert matmul.trellis_dense(empty, 0, 64, gaussian(8), 8, 2, torch.empty(0)).shape == (0, 64)
    assert matmul.int_dense(empty, 0, 32, 4, 32, torch.empty(0, 1, 16)).shape == (0, 32)
