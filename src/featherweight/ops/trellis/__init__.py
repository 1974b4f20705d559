"""Encoding of samples as tail-biting streams of the bitshift trellis, and decoding.

A tile of T samples becomes a stream of k T bits, least significant bit first, with k bits for each
sample. The state at index t is the L bits [k t, k t + L) of the stream, where positions are taken
modulo k T, and the decoded sample is `values[state]`. So a code is a table of 2^L numbers. `encode`
searches the stream with the least squared error with a two-pass Viterbi algorithm in 16-bit
arithmetic (`reference.py` defines it; the native library gives the same bytes). `decode` looks the
states up in the table.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...base.errors import UsageError
from .. import library
from . import native, reference


def check(length: int, values: Tensor, L: int, k: int) -> None:
    """Raise UsageError unless the sizes are those of a trellis: k = 1 to 4 bits a sample, L = 8 to
    16 bits of state, `length` samples a tile with length % 8 == 0 and k * length >= L, and float32
    `values` of shape (2^L,).
    """
    if not 1 <= k <= 4:
        raise UsageError(f"k={k} bits a weight; the trellis has 1, 2, 3 or 4")
    if not 8 <= L <= 16:
        raise UsageError(f"L={L} state bits; the trellis has 8 to 16")
    if length % 8 or not 8 <= length <= 65536 or k * length < L:
        raise UsageError(
            f"tiles of {length} samples; need a multiple of 8 up to 65536 with k * samples >= L"
        )
    if values.shape != (1 << L,) or values.dtype != torch.float32:
        raise UsageError(
            f"values is {values.dtype} {tuple(values.shape)}; need float32 ({1 << L},) for L={L}"
        )


def encode(
    x: Float[Tensor, "tiles T"],
    values: Float[Tensor, " states"],
    L: int,
    k: int,
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> UInt8[Tensor, "tiles bytes"]:
    """The streams of the paths through `values` that are nearest to `x`.

    Args: x, samples in the unit in which the code has unit variance; they are clipped to [-4, 4];
    values, the number of each state of L bits; k, bits a sample; isa, one of scalar, avx2, avx512,
    reference (None: the best); threads, their number for this call. The result is on the device of
    `x` and does not depend on isa and threads. Raises UsageError for impossible sizes (`check`),
    BadInput when x or values is not finite.
    """
    if x.ndim != 2 or x.dtype != torch.float32:
        raise UsageError(f"x is {x.dtype} {tuple(x.shape)}; need float32 (tiles, T)")
    check(x.shape[1], values, L, k)
    if not _is_native(x, isa):
        return reference.encode(x, values, L, k)
    return native.encode(x, values, L, k, isa, threads)


def decode(
    streams: UInt8[Tensor, "tiles bytes"],
    values: Float[Tensor, " states"],
    L: int,
    k: int,
    *,
    isa: str | None = None,
    threads: int | None = None,
) -> Float[Tensor, "tiles T"]:
    """`values[state]` along every stream, on the device of `streams`; T = 8 * bytes / k.

    Arguments as in `encode`. Raises UsageError for impossible sizes (`check`).
    """
    if streams.ndim != 2 or streams.dtype != torch.uint8 or not 1 <= k <= 4 or streams.shape[1] % k:
        raise UsageError(
            f"streams is {streams.dtype} {tuple(streams.shape)}; "
            f"need uint8 (tiles, k * T / 8), k={k}"
        )
    check(8 * streams.shape[1] // k, values, L, k)
    if not _is_native(streams, isa):
        return reference.decode(streams, values, L, k)
    return native.decode(streams, values, L, k, isa, threads)


def _is_native(tensor: Tensor, isa: str | None) -> bool:
    return (
        isa != "reference"
        and tensor.numel() > 0
        and tensor.device.type == "cpu"
        and library.library() is not None
    )
