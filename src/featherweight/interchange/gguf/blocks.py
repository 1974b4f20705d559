"""Codes as GGUF blocks: which storage type holds a matrix of scaled whole numbers exactly, and its
bytes.

    type    weights   bytes, in order                                    value
    Q4_0    32        d, 16 x nibbles                                    d (u - 8)
    Q4_1    32        d, m, 16 x nibbles                                 d u + m
    Q8_0    32        d, 32 x int8                                       d q
    TQ2_0   256       64 x four 2-bit fields, d                          d (u - 1), u = 0 ... 3

d and m are little-endian fp16. The low nibbles are a block's first 16 weights, the high ones its
last 16; a TQ2_0 byte j of 32 holds weights j, j + 32, j + 64, j + 96 of 128, from the low bits up.
A group that spans several blocks repeats its scale. Codes of fewer bits go into the narrowest type
that has their levels: 3 bits are exact in Q4_0, at 4.5 bits. Two symmetric bits have the levels -2
... 1, the negatives of TQ2_0's, so their d is the negative scale.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from ...base.errors import UsageError
from ...quantization.formats.base import Integers

WIDTH = {"Q4_0": 32, "Q4_1": 32, "Q8_0": 32, "TQ2_0": 256}
LEVELS = {"TQ2_0": (-1, 2), "Q4_0": (-8, 7), "Q8_0": (-128, 127)}


def type_of(matrix: Integers) -> str:
    """The narrowest GGUF type that holds `matrix` exactly.

    Raises UsageError that says why none does, and what would.
    """
    columns = matrix.codes.shape[1]
    if columns % 32:
        raise UsageError(
            f"{columns} inputs are no multiple of 32, the block that all of GGUF's integers come in"
        )
    if columns != matrix.group and matrix.group % 32:
        raise UsageError(
            f"groups of {matrix.group} are narrower than GGUF's blocks; group=32 (Q4_0) is the nearest"
        )
    if not isinstance(matrix.zero, int):
        return _asymmetric(matrix)
    for name, (lowest, highest) in LEVELS.items():
        if columns % WIDTH[name] or (columns != matrix.group and matrix.group % WIDTH[name]):
            continue
        if lowest <= matrix.lowest and matrix.highest <= highest:
            return name
        if name == "TQ2_0" and lowest <= -matrix.highest and -matrix.lowest <= highest:
            return name
    raise AssertionError("every symmetric matrix of up to 8 bits fits Q8_0")


def _asymmetric(matrix: Integers) -> str:
    if matrix.highest > 15:
        raise UsageError(
            "GGUF has no type for zero points of more than 4 bits; symmetric 8 bits (Q8_0) are the nearest"
        )
    if not torch.equal(minimum(matrix).half().float(), minimum(matrix)):
        raise UsageError(
            "its scale times zero point is not exact in fp16, as Q4_1 needs; portable=True makes it so"
        )
    return "Q4_1"


def minimum(matrix: Integers) -> Tensor:
    """What code 0 stands for, float32 (rows, groups)."""
    return -matrix.scale * torch.as_tensor(matrix.zero).float()


def rows_of(matrix: Integers, name: str) -> UInt8[np.ndarray, "rows bytes"]:
    """The bytes of `matrix` in the GGUF type `name` (which `type_of` chose)."""
    rows, columns = matrix.codes.shape
    width = WIDTH[name]
    repeats = max(matrix.group // width, 1)
    scale = matrix.scale.repeat_interleave(repeats, 1)[:, : columns // width]
    codes = matrix.codes.view(rows, columns // width, width)
    if name == "Q4_1":
        least = minimum(matrix).repeat_interleave(repeats, 1)[:, : columns // width]
        parts = [_halves(scale), _halves(least), _nibbles(codes.numpy())]
        return np.concatenate(parts, -1).reshape(rows, -1)
    levels = codes.to(torch.int16) - matrix.zero
    if name == "Q4_0":
        parts = [_halves(scale), _nibbles((levels + 8).to(torch.uint8).numpy())]
    elif name == "Q8_0":
        parts = [_halves(scale), levels.to(torch.int8).numpy().view(np.uint8)]
    else:
        sign = 1 if matrix.lowest >= -1 else -1
        parts = [_quarters((sign * levels + 1).to(torch.uint8).numpy()), _halves(sign * scale)]
    return np.concatenate(parts, -1).reshape(rows, -1)


def _halves(values: Tensor) -> np.ndarray:
    """fp16 bytes, two a value."""
    return values.numpy().astype("<f2")[..., None].view(np.uint8)


def _nibbles(codes: np.ndarray) -> np.ndarray:
    return codes[..., :16] | codes[..., 16:] << 4


def _quarters(codes: np.ndarray) -> np.ndarray:
    """(..., 256) -> (..., 64): 32 bytes for each 128 codes."""
    fields = codes.reshape(*codes.shape[:-1], 2, 4, 32)
    packed = (
        fields[..., 0, :] | fields[..., 1, :] << 2 | fields[..., 2, :] << 4 | fields[..., 3, :] << 6
    )
    return packed.reshape(*codes.shape[:-1], 64)


def permuted(matrix: Integers, order: Tensor) -> Integers:
    """The same matrix with its rows in another order: codes and scales move together."""
    zero = matrix.zero if isinstance(matrix.zero, int) else matrix.zero[order]
    return Integers(
        matrix.codes[order], matrix.scale[order], zero, matrix.group, matrix.lowest, matrix.highest
    )
