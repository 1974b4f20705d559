"""The native trellis equals the reference byte for byte: every instruction set, rate, state size
and awkward shape.
"""

from __future__ import annotations

import math

import pytest
import torch
from tests.ops.tables import g_code, gaussian, hostile_tables, hostile_tiles, one_mad

from featherweight.base.errors import BadInput
from featherweight.ops import library, trellis

pytestmark = pytest.mark.skipif(library.library() is None, reason="no native library")
ISAS = library.available()
SHAPES = [
    (8, 8),
    (8, 256),
    (9, 24),
    (10, 72),
    (11, 16),
    (12, 40),
    (13, 16),
    (14, 16),
    (15, 16),
    (16, 16),
]


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(("L", "T"), SHAPES)
def test_equals_reference(k: int, L: int, T: int) -> None:
    x, values = 1.3 * torch.randn(3, T), gaussian(L)
    streams = trellis.encode(x, values, L, k, isa="reference")
    samples = trellis.decode(streams, values, L, k, isa="reference")
    for isa in ISAS:
        assert torch.equal(trellis.encode(x, values, L, k, isa=isa), streams), isa
        assert torch.equal(trellis.decode(streams, values, L, k, isa=isa), samples), isa


@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize(("L", "T"), [(8, 8), (8, 64), (11, 24)])
def test_equals_reference_on_hostile_input(k: int, L: int, T: int) -> None:
    x = hostile_tiles(T)
    for name, values in {"1mad": one_mad(L), **hostile_tables(L)}.items():
        reference = trellis.encode(x, values, L, k, isa="reference")
        for isa in ISAS:
            assert torch.equal(trellis.encode(x, values, L, k, isa=isa), reference), (name, isa)


def test_equals_reference_on_real_tiles() -> None:
    x = torch.randn(4, 256)
    for k, values in ((2, g_code(12)), (4, one_mad(12))):
        reference = trellis.encode(x, values, 12, k, isa="reference")
        for isa in ISAS:
            assert torch.equal(trellis.encode(x, values, 12, k, isa=isa), reference), (k, isa)


def test_threads_change_nothing() -> None:
    x, values = torch.randn(37, 256), one_mad(10)
    streams = trellis.encode(x, values, 10, 2, threads=1)
    for threads in (2, 3, 64):
        assert torch.equal(trellis.encode(x, values, 10, 2, threads=threads), streams)
        samples = trellis.decode(streams, values, 10, 2, threads=threads)
        assert torch.equal(samples, trellis.decode(streams, values, 10, 2, isa="reference"))


def test_no_tiles_are_no_work() -> None:
    values = gaussian(8)
    streams = trellis.encode(torch.empty(0, 16), values, 8, 2)
    assert streams.shape == (0, 4)
    assert trellis.decode(streams, values, 8, 2).shape == (0, 16)


def test_strided_and_unaligned_input() -> None:
    values, matrix = gaussian(9), torch.randn(6, 33)
    tiles = matrix[:, 1:]
    assert torch.equal(
        trellis.encode(tiles, values, 9, 3),
        trellis.encode(tiles.contiguous(), values, 9, 3, isa="reference"),
    )
    flat = matrix.flatten()[1:97].view(3, 32)
    streams = trellis.encode(flat, values, 9, 3)
    assert torch.equal(streams, trellis.encode(flat.clone(), values, 9, 3, isa="reference"))
    odd_address = torch.cat([torch.zeros(1, dtype=torch.uint8), streams.flatten()])[1:].view_as(
        streams
    )
    assert torch.equal(
        trellis.decode(odd_address, values, 9, 3),
        trellis.decode(streams, values, 9, 3, isa="reference"),
    )


@pytest.mark.parametrize("isa", ISAS)
def test_every_byte_is_written_and_none_beyond(isa: str) -> None:
    native, name = library.library(), isa.encode()
    assert native is not None
    x, values, guard = torch.randn(3, 24), gaussian(8), 16
    streams = trellis.encode(x, values, 8, 3, isa="reference")
    output = torch.full((streams.numel() + guard,), 0xA5, dtype=torch.uint8)
    scale = trellis.reference.SCALE[3]
    pointers = x.data_ptr(), 3, 24, values.data_ptr(), 8, 3
    assert native.fw_viterbi_encode(*pointers, scale, name, 2, output.data_ptr()) == 0
    assert torch.equal(output[:-guard].view_as(streams), streams)
    assert (output[-guard:] == 0xA5).all()
    out = torch.full((x.numel() + guard,), math.nan)
    assert native.fw_trellis_decode(streams.data_ptr(), *pointers[1:], name, 2, out.data_ptr()) == 0
    assert torch.equal(
        out[:-guard].view_as(x), trellis.decode(streams, values, 8, 3, isa="reference")
    )
    assert out[-guard:].isnan().all()


@pytest.mark.parametrize("isa", ["reference", *ISAS])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_an_error(isa: str, bad: float) -> None:
    x, values = torch.randn(4, 16), gaussian(8)
    x[3, 7] = bad
    with pytest.raises(BadInput, match="not finite"):
        trellis.encode(x, values, 8, 2, isa=isa)
    values[9] = bad
    with pytest.raises(BadInput, match="not finite"):
        trellis.encode(torch.randn(4, 16), values, 8, 2, isa=isa)


def test_library_refuses_sizes_itself() -> None:
    native = library.library()
    assert native is not None
    x, values, out = torch.zeros(1, 16), gaussian(8), torch.zeros(64, dtype=torch.uint8)

    def status(
        tiles: int, length: int, L: int, k: int, scale: float = 2000.0, isa: bytes | None = None
    ) -> int:
        return native.fw_viterbi_encode(
            x.data_ptr(), tiles, length, values.data_ptr(), L, k, scale, isa, 1, out.data_ptr()
        )

    assert status(1, 16, 8, 2) == 0
    for sizes in (
        (-1, 16, 8, 2),
        (1, 12, 8, 2),
        (1, 0, 8, 2),
        (1, 16, 7, 2),
        (1, 16, 17, 2),
        (1, 16, 8, 0),
        (1, 16, 8, 5),
    ):
        assert status(*sizes) == 1, sizes
    assert status(1, 8, 16, 1) == 1  # 8 bits of stream hold no state of 16
    assert status(1, 16, 8, 2, scale=math.nan) == 1
    assert status(1, 16, 8, 2, isa=b"sse9") == 4
