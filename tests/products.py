"""Matrices for the tests of products, and what each must give: whole-number arithmetic in numpy,
scaled at the end.

Vectors hold whole numbers whose largest is 127 (16256 for two planes), so that rounding them
changes nothing and every result has one right answer, bit by bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from featherweight.inference.native import abi
from featherweight.inference.native.product import multiply
from featherweight.inference.native.weights import MatrixWeights
from featherweight.ops import lanes
from featherweight.ops.trellis import reference

COLUMNS = {
    12: (0xB2, 0xE7, 0x82, 0x11),
    14: (0x29, 0x66, 0x9D, 0x09, 0x93, 0x11),
    8: (),
    16: (1, 2, 4, 8, 16, 32, 64, 128),
}
VECTORS = (1, 2, 3, 5, 8, 16, 17)
Floats = NDArray[np.float32]


def vectors(columns: int, planes: int = 1, count: int = 17, seed: int = 0) -> Floats:
    """Whole numbers; the first vectors are extremes: all 127, all -127, alternating, one alone."""
    most = 127 if planes == 1 else 16256
    x = np.random.default_rng(seed).integers(-most, most + 1, (count, columns))
    x[:, 0] = most
    x[0], x[1] = most, -most
    x[2] = np.where(np.arange(columns) % 2, most, -most)
    x[3] = 0
    x[3, -1] = -most
    return x.astype(np.float32)


def int_matrix(
    rows: int,
    columns: int,
    bits: int,
    group: int | None = None,
    zeros: bool = False,
    fill: str = "random",
    odd: bool = False,
) -> tuple[MatrixWeights, NDArray[np.int64]]:
    """A matrix of integer codes and its codes less their zero points; `odd` puts codes and scales
    at odd addresses.
    """
    random = np.random.default_rng(bits)
    high, wide = -(-rows // 16) * 16, -(-columns // 32) * 32
    codes = random.integers(0, 1 << bits, (high, wide), np.uint8)
    if fill != "random":
        codes[:] = {"lowest": 0, "highest": (1 << bits) - 1}[fill]
    groups = 1 if group is None else -(-wide // group)
    scales = (random.uniform(0.001, 0.1, (high // 16, groups, 16))).astype(np.float16)
    zero = (
        random.integers(0, 1 << bits, scales.shape, np.uint8)
        if zeros
        else np.full(scales.shape, 1 << (bits - 1))
    )
    stored = lanes.int_to_lanes(torch.from_numpy(codes), bits).numpy()
    matrix = MatrixWeights(
        "int",
        (rows, columns),
        shifted(stored) if odd else stored,
        bits=bits,
        group=group or wide,
        scales=shifted(scales) if odd else scales,
        zeros=zero if zeros else None,
        zero=1 << (bits - 1),
    )
    each = np.repeat(zero.transpose(0, 2, 1).reshape(high, groups), group or wide, 1)
    return matrix, codes[:rows, :columns].astype(np.int64) - each[:rows, :columns]


def trellis_matrix(
    rows: int, columns: int, bits: int, L: int, table: str = "random", odd: bool = False
) -> tuple[MatrixWeights, NDArray[np.int64]]:
    """A matrix of trellis codes and the whole number of each; `table` random, extreme (63 and -63)
    or made of nibbles.
    """
    random = np.random.default_rng(8 * L + bits)
    high, wide = -(-rows // 64) * 64, -(-columns // 64) * 64
    streams = torch.from_numpy(
        random.integers(0, 256, (high // 16, wide // 16, 32 * bits), np.uint8)
    )
    if table == "nibbles":
        i = np.arange(256)
        low, top = i & 15, i >> 4
        # In the order of bits that codes have: the lowest tells the sign, bit 3 the greater of two.
        size = np.array([0, 16, 8, 24, 4, 20, 12, 28])[low >> 1]
        middle = np.where(low % 2 == 1, size + 3, size - 31)
        numbers = np.where(low == 15, 40 + top, np.where(low == 0, -40 - top, middle)) + top % 4 - 1
    else:
        numbers = (
            random.integers(-63, 64, 256) if table == "random" else random.choice([-63, 63], 256)
        )
    states = reference.states(streams.reshape(-1, 32 * bits), L, bits).numpy()
    h = states & 255
    for i, column in enumerate(COLUMNS[L]):
        h = h ^ ((states >> (8 + i) & 1) * column)
    tiles = numbers[h].reshape(high // 16, wide // 16, 16, 16)
    weights = tiles.transpose(0, 2, 1, 3).reshape(high, wide)[:rows, :columns]
    scales = random.uniform(0.001, 0.1, high).astype(np.float16)
    stored = lanes.trellis_to_lanes(streams).numpy()
    matrix = MatrixWeights(
        "trellis",
        (rows, columns),
        shifted(stored) if odd else stored,
        bits=bits,
        scales=shifted(scales) if odd else scales,
        state_bits=L,
        table=tuple(numbers.tolist()),
        code_matrix=COLUMNS[L],
    )
    return matrix, weights.astype(np.int64)


def shifted(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers one byte beyond an aligned address, as they may lie in a file."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = array.reshape(-1).view(np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


def expected(
    matrix: MatrixWeights, weights: NDArray[np.int64], x: Floats, planes: int = 1
) -> Floats:
    """The product of `x` with `weights`, in the order of the kernels' few roundings."""
    whole = x.astype(np.int64)
    high = np.round(whole / 128).astype(np.int64)  # ties to even, as the library
    parts = [(whole, 1.0)] if planes == 1 else [(high, 128.0), (whole - 128 * high, 1.0)]
    assert matrix.scales is not None
    rows, columns = matrix.shape
    total = np.zeros((len(x), rows), np.float32)
    for codes, scale in parts:
        if matrix.kind == "trellis":
            factor = np.float32(scale) * np.float32(abi.Keeper().matrix(matrix).unit)
            found = (codes @ weights.T).astype(np.float32) * (
                matrix.scales[:rows].astype(np.float32) * factor
            )
        else:
            width = matrix.group
            groups = -(-columns // width)
            scales = (
                matrix.scales.astype(np.float32)
                .transpose(1, 0, 2)
                .reshape(matrix.scales.shape[1], -1)[:, :rows]
            )
            found = np.zeros_like(total)
            for g in range(groups):
                part = slice(g * width, (g + 1) * width)
                found += (codes[:, part] @ weights[:, part].T).astype(np.float32) * scales[g]
            found *= np.float32(scale)
        total = found if scale == 1.0 and planes == 1 else total + found
    return total


def check(
    matrix: MatrixWeights, weights: NDArray[np.int64], isas: tuple[str, ...], planes: int = 1
) -> None:
    """Every instruction set and number of vectors gives the expected bits."""
    x = vectors(matrix.shape[1], planes)
    right = expected(matrix, weights, x, planes)
    for isa in isas:
        for count in VECTORS:
            found = multiply(matrix, x[:count], planes=planes, isa=isa)
            np.testing.assert_array_equal(found, right[:count], err_msg=f"{isa}, {count} vectors")
    np.testing.assert_allclose(
        multiply(matrix, x, planes=0, isa=isas[0]), right, rtol=1e-4, atol=2e-6 * abs(right).max()
    )


def few_cases() -> Iterator[tuple[MatrixWeights, NDArray[np.int64]]]:
    """One of everything, small: for kernels that are emulated."""
    for bits in range(2, 9):
        yield int_matrix(35, 96, bits, 32 if bits % 2 else None, zeros=bits % 3 == 0)
        yield int_matrix(16, 64, bits, fill="highest")
    for L in (8, 12, 14, 16):
        for bits in (1, 2, 3, 4):
            yield trellis_matrix(70, 64, bits, L, "extreme" if bits == 2 else "nibbles")
