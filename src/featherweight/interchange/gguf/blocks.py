"""Scaled integer codes written as GGUF blocks: the choice of the storage type, and the encoding.

    type    weights   bytes, in order                  bits    value
    TQ2_0   256       64 x four 2-bit codes, d         2.0625  d (u - 1), u = 0 ... 3
    Q2_0    64        d, 16 x four 2-bit codes         2.25    d (u - 1), u = 0 ... 3
    Q4_0    32        d, 16 x two 4-bit codes          4.5     d (u - 8)
    Q4_1    32        d, m, 16 x two 4-bit codes       5       d u + m
    Q8_0    32        d, 32 x int8                     8.5     d q

d and m are little-endian fp16 numbers. In Q4 blocks the low half of byte j holds weight j and the
high half weight j + 16. In Q2_0 byte j holds the weights 4j ... 4j + 3, from the low bits up. In
TQ2_0 byte j of 32 holds the weights j, j + 32, j + 64, j + 96 of 128.

When a group of columns spans several blocks, each of these blocks stores the group's scale. Among
the types that hold a matrix exactly, the one with the fewest bytes is chosen: 3-bit codes become
Q4_0; 2-bit codes become TQ2_0 when the columns and the group are multiples of 256, else Q2_0 when
they are multiples of 64, else Q4_0. Symmetric 2-bit codes have the levels -2 ... 1, but the two-bit
types have -1 ... 2, so both the levels and the scale are negated. 2-bit codes with a zero point
become Q4_1.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ...base.errors import UsageError
from ...quantization.formats.base import Integers
from . import types

# The lowest and highest level of each symmetric type, in increasing order of bits.
LEVELS = {"TQ2_0": (-1, 2), "Q2_0": (-1, 2), "Q4_0": (-8, 7), "Q8_0": (-128, 127)}
WRITTEN_TYPES = (*LEVELS, "Q4_1")
NARROWEST_BLOCK = 32


def choose_type(matrix: Integers) -> str:
    """The name of the GGUF type that holds `matrix` exactly in the fewest bytes.

    Raises UsageError, with the reason and a format that would fit, when no type does.
    """
    columns = matrix.codes.shape[1]
    if columns % NARROWEST_BLOCK:
        raise UsageError(
            f"{columns} inputs are no multiple of 32, the block that all of GGUF's integers come in"
        )
    if columns != matrix.group and matrix.group % NARROWEST_BLOCK:
        raise UsageError(
            f"groups of {matrix.group} are narrower than GGUF's blocks; group=32 (Q4_0) is the "
            "nearest"
        )
    if not isinstance(matrix.zero, int):
        _check_asymmetric(matrix)
        return "Q4_1"
    for name, levels in LEVELS.items():
        block = types.by_name(name).block
        if columns % block or (columns != matrix.group and matrix.group % block):
            continue
        if _sign(matrix, levels):
            return name
    raise AssertionError("every symmetric matrix of up to 8 bits fits Q8_0")


def _sign(matrix: Integers, levels: tuple[int, int]) -> int:
    """1 when the levels of `matrix` lie in the range `levels`, -1 when the negated levels do, 0
    when neither do.
    """
    lowest, highest = levels
    if lowest <= matrix.lowest and matrix.highest <= highest:
        return 1
    return -1 if lowest <= -matrix.highest and -matrix.lowest <= highest else 0


def _check_asymmetric(matrix: Integers) -> None:
    if matrix.highest > 15:
        raise UsageError(
            "GGUF has no type for zero points of more than 4 bits; symmetric 8 bits (Q8_0) are the "
            "nearest"
        )
    if not torch.equal(minimum(matrix).half().float(), minimum(matrix)):
        raise UsageError(
            "its scale times zero point is not exact in fp16, as Q4_1 needs; portable=True makes "
            "it so"
        )


def minimum(matrix: Integers) -> Tensor:
    """The value of code 0 in each group, float32 (rows, groups)."""
    return -matrix.scale * torch.as_tensor(matrix.zero).float()


def encode(matrix: Integers, name: str) -> UInt8[np.ndarray, "rows bytes"]:
    """The bytes of `matrix` in the GGUF type `name`, which must be the result of `choose_type`."""
    rows, columns = matrix.codes.shape
    block = types.by_name(name).block
    repeats = max(matrix.group // block, 1)
    scale = matrix.scale.repeat_interleave(repeats, 1)[:, : columns // block]
    codes = matrix.codes.view(rows, columns // block, block)
    if name == "Q4_1":
        minima = minimum(matrix).repeat_interleave(repeats, 1)[:, : columns // block]
        fields = [_to_fp16(scale), _to_fp16(minima), _pack_nibbles(codes)]
        return np.concatenate(fields, -1).reshape(rows, -1)
    assert isinstance(matrix.zero, int)
    sign = _sign(matrix, LEVELS[name])
    levels, scale = sign * (codes.to(torch.int16) - matrix.zero), sign * scale
    unsigned_codes = (levels - LEVELS[name][0]).to(torch.uint8)
    if name == "Q4_0":
        fields = [_to_fp16(scale), _pack_nibbles(unsigned_codes)]
    elif name == "Q8_0":
        fields = [_to_fp16(scale), levels.to(torch.int8).numpy().view(np.uint8)]
    elif name == "Q2_0":
        fields = [_to_fp16(scale), _pack_quarters(unsigned_codes.unflatten(-1, (16, 4)))]
    else:
        halves = unsigned_codes.unflatten(-1, (2, 4, 32)).transpose(-1, -2)
        fields = [_pack_quarters(halves).reshape(rows, -1, 64), _to_fp16(scale)]
    return np.concatenate(fields, -1).reshape(rows, -1)


def _to_fp16(values: Tensor) -> np.ndarray:
    """(...) numbers -> (..., 2) bytes of little-endian fp16."""
    return values.numpy().astype("<f2")[..., None].view(np.uint8)


def _pack_nibbles(codes: Tensor) -> np.ndarray:
    """(..., 32) 4-bit codes -> (..., 16) bytes."""
    return (codes[..., :16] | codes[..., 16:] << 4).numpy()


def _pack_quarters(codes: Tensor) -> np.ndarray:
    """(..., 4) 2-bit codes -> (...) bytes, the first code in the lowest bits."""
    c = codes
    return (c[..., 0] | c[..., 1] << 2 | c[..., 2] << 4 | c[..., 3] << 6).numpy()


def reorder_rows(matrix: Integers, order: Tensor) -> Integers:
    """The same matrix with its rows in another order: codes and scales move together."""
    zero = matrix.zero if isinstance(matrix.zero, int) else matrix.zero[order]
    return Integers(
        matrix.codes[order], matrix.scale[order], zero, matrix.group, matrix.lowest, matrix.highest
    )
