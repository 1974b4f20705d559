"""Matrices for the tests of products, and the result that each must give: integer arithmetic in
numpy, scaled at the end.

Vectors hold integers of at most 127 (16256 for two planes), so that rounding them to int8 changes
nothing and every result has one correct value in every bit.
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
    """Integers as floats. The first vectors are extremes: all 127, all -127, alternating signs, and
    a single number that is not zero.
    """
    largest = 127 if planes == 1 else 16256
    x = np.random.default_rng(seed).integers(-largest, largest + 1, (count, columns))
    x[:, 0] = largest
    x[0], x[1] = largest, -largest
    x[2] = np.where(np.arange(columns) % 2, largest, -largest)
    x[3] = 0
    x[3, -1] = -largest
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
    """A matrix of integer codes, and its codes minus their zero points; with `odd` the codes and
    scales lie at odd addresses.
    """
    random = np.random.default_rng(bits)
    padded_rows, padded_columns = -(-rows // 16) * 16, -(-columns // 32) * 32
    codes = random.integers(0, 1 << bits, (padded_rows, padded_columns), np.uint8)
    if fill != "random":
        codes[:] = {"lowest": 0, "highest": (1 << bits) - 1}[fill]
    groups = 1 if group is None else -(-padded_columns // group)
    scales = (random.uniform(0.001, 0.1, (padded_rows // 16, groups, 16))).astype(np.float16)
    zero = (
        random.integers(0, 1 << bits, scales.shape, np.uint8)
        if zeros
        else np.full(scales.shape, 1 << (bits - 1))
    )
    lane_bytes = lanes.int_to_lanes(torch.from_numpy(codes), bits).numpy()
    matrix = MatrixWeights(
        "int",
        (rows, columns),
        at_odd_address(lane_bytes) if odd else lane_bytes,
        bits=bits,
        group=group or padded_columns,
        scales=at_odd_address(scales) if odd else scales,
        zeros=zero if zeros else None,
        zero=1 << (bits - 1),
    )
    zero_of_code = np.repeat(
        zero.transpose(0, 2, 1).reshape(padded_rows, groups), group or padded_columns, 1
    )
    return matrix, codes[:rows, :columns].astype(np.int64) - zero_of_code[:rows, :columns]


def trellis_matrix(
    rows: int, columns: int, bits: int, L: int, table: str = "random", odd: bool = False
) -> tuple[MatrixWeights, NDArray[np.int64]]:
    """A matrix of trellis codes, and the integer of each code; `table` is random, extreme (63 and
    -63) or nibbles (each number follows from the two halves of its index).
    """
    random = np.random.default_rng(8 * L + bits)
    padded_rows, padded_columns = -(-rows // 64) * 64, -(-columns // 64) * 64
    streams = torch.from_numpy(
        random.integers(0, 256, (padded_rows // 16, padded_columns // 16, 32 * bits), np.uint8)
    )
    if table == "nibbles":
        i = np.arange(256)
        low, top = i & 15, i >> 4
        # Bit 0 of an index gives the sign, and bit 3 gives the larger of two sizes.
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
    tiles = numbers[h].reshape(padded_rows // 16, padded_columns // 16, 16, 16)
    weights = tiles.transpose(0, 2, 1, 3).reshape(padded_rows, padded_columns)[:rows, :columns]
    scales = random.uniform(0.001, 0.1, padded_rows).astype(np.float16)
    lane_bytes = lanes.trellis_to_lanes(streams).numpy()
    matrix = MatrixWeights(
        "trellis",
        (rows, columns),
        at_odd_address(lane_bytes) if odd else lane_bytes,
        bits=bits,
        scales=at_odd_address(scales) if odd else scales,
        state_bits=L,
        table=tuple(numbers.tolist()),
        code_matrix=COLUMNS[L],
    )
    return matrix, weights.astype(np.int64)


def at_odd_address(array: NDArray[Any]) -> NDArray[Any]:
    """The same numbers one byte behind an aligned address, as they may lie in a file."""
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = array.reshape(-1).view(np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


def expected(
    matrix: MatrixWeights, weights: NDArray[np.int64], x: Floats, planes: int = 1
) -> Floats:
    """The product of `x` with `weights`, rounded to float32 in the order of the kernels."""
    integers = x.astype(np.int64)
    high = np.round(integers / 128).astype(np.int64)  # ties to even, as the library
    plane_scales = (
        [(integers, 1.0)] if planes == 1 else [(high, 128.0), (integers - 128 * high, 1.0)]
    )
    assert matrix.scales is not None
    rows, columns = matrix.shape
    total = np.zeros((len(x), rows), np.float32)
    for plane, scale in plane_scales:
        if matrix.kind == "trellis":
            struct = abi.StructArena().matrix_struct(matrix)
            factor = np.float32(scale) * np.float32(struct.table_scale)
            product = (plane @ weights.T).astype(np.float32) * (
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
            product = np.zeros_like(total)
            for g in range(groups):
                group = slice(g * width, (g + 1) * width)
                product += (plane[:, group] @ weights[:, group].T).astype(np.float32) * scales[g]
            product *= np.float32(scale)
        total = product if scale == 1.0 and planes == 1 else total + product
    return total


def check(
    matrix: MatrixWeights, weights: NDArray[np.int64], isas: tuple[str, ...], planes: int = 1
) -> None:
    """Every instruction set and number of vectors gives the expected bits."""
    x = vectors(matrix.shape[1], planes)
    reference = expected(matrix, weights, x, planes)
    for isa in isas:
        for count in VECTORS:
            product = multiply(matrix, x[:count], planes=planes, isa=isa)
            np.testing.assert_array_equal(
                product, reference[:count], err_msg=f"{isa}, {count} vectors"
            )
    np.testing.assert_allclose(
        multiply(matrix, x, planes=0, isa=isas[0]),
        reference,
        rtol=1e-4,
        atol=2e-6 * abs(reference).max(),
    )


def few_cases() -> Iterator[tuple[MatrixWeights, NDArray[np.int64]]]:
    """One small matrix of each kind: for kernels that are emulated."""
    for bits in range(2, 9):
        yield int_matrix(35, 96, bits, 32 if bits % 2 else None, zeros=bits % 3 == 0)
        yield int_matrix(16, 64, bits, fill="highest")
    for L in (8, 12, 14, 16):
        for bits in (1, 2, 3, 4):
            yield trellis_matrix(70, 64, bits, L, "extreme" if bits == 2 else "nibbles")
