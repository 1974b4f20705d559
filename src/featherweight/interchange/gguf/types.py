"""The storage types of GGUF tensors: the size of their blocks, and how a block is decoded.

Blocks are decoded by `gguf.quants`, from the package of the llama.cpp project, when it supports the
type. Release 0.19 of the package cannot decode two types of llama.cpp, so they are decoded here:

    type   id   weights   bytes, in order            value
    Q1_0   41   128       d, 16 x eight 1-bit codes  d (2 u - 1)
    Q2_0   42   64        d, 16 x four 2-bit codes   d (u - 1), u = 0 ... 3

d is a little-endian fp16 number; the first code of a byte lies in its lowest bits. An earlier draft
of type 42 had blocks of 128 weights in 34 bytes. When such a file is read with today's blocks, its
tensors overlap, so `GGUFFile` refuses it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from ...base.errors import UsageError


@dataclass(frozen=True)
class StorageType:
    """One type: its name and number, the weights of a block and the bytes they take."""

    name: str
    number: int
    block: int
    block_bytes: int

    @property
    def bits_per_weight(self) -> float:
        """Bits that a weight takes, scales included."""
        return 8 * self.block_bytes / self.block

    def num_bytes(self, num_weights: int) -> int:
        """Bytes that `num_weights` weights, a multiple of the block, take."""
        return num_weights // self.block * self.block_bytes


def by_number(number: int) -> StorageType:
    """The type with this number in files. Raises KeyError for an unknown one."""
    return _types()[number]


def by_name(name: str) -> StorageType:
    """The type of this name, such as Q4_0. Raises KeyError for an unknown one."""
    return next(type_ for type_ in _types().values() if type_.name == name)


def decode(
    rows: UInt8[np.ndarray, "rows bytes"], storage: StorageType
) -> Float32[np.ndarray, "rows columns"]:
    """The weights in the blocks of `rows`; they are not finite where a stored scale is not finite.

    Raises NotImplementedError for types that hold no weights (integers, intermediate results).
    """
    with np.errstate(all="ignore"):  # the caller checks that the numbers are finite
        if storage.name in FLOATS:
            numbers = rows.view(FLOATS[storage.name])
        elif storage.name in DECODERS:
            blocks = rows.reshape(-1, storage.block_bytes)
            numbers = DECODERS[storage.name](blocks).reshape(len(rows), -1)
        else:
            gguf = package()
            numbers = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(storage.number))
        return np.ascontiguousarray(numbers, np.float32)


def _decode_q1_0(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 128"]:
    codes = blocks[:, 2:, None] >> np.arange(8, dtype=np.uint8) & 1
    return (codes.reshape(-1, 128) * np.float32(2) - np.float32(1)) * _scales(blocks)


def _decode_q2_0(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 64"]:
    codes = blocks[:, 2:, None] >> np.arange(0, 8, 2, dtype=np.uint8) & 3
    return (codes.reshape(-1, 64) - np.float32(1)) * _scales(blocks)


def _scales(blocks: UInt8[np.ndarray, "blocks 18"]) -> Float32[np.ndarray, "blocks 1"]:
    return np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float32)


FLOATS = {"F32": "<f4", "F16": "<f2", "F64": "<f8"}
DECODERS: dict[str, Callable[[Any], Any]] = {"Q1_0": _decode_q1_0, "Q2_0": _decode_q2_0}
EXTRA_TYPES = (StorageType("Q1_0", 41, 128, 18), StorageType("Q2_0", 42, 64, 18))


def package() -> Any:
    """The `gguf` package. Raises UsageError with the command that installs it."""
    try:
        import gguf
    except ImportError as error:
        raise UsageError("reading GGUF files needs the gguf package: pip install gguf") from error
    return gguf


@cache
def _types() -> dict[int, StorageType]:
    gguf = package()
    types = {
        int(kind): StorageType(kind.name, int(kind), *sizes)
        for kind, sizes in gguf.GGML_QUANT_SIZES.items()
    }
    return types | {storage.number: storage for storage in EXTRA_TYPES}
