"""The code functions of the bitshift trellis: from a state of L bits to a number.

All are tables of 2^L float32 values with zero mean and unit variance over uniform states.
`g`      GF(2)-linear: h(s) = (s & 255) xor M (s >> 8), value = table[h]. Decodes with byte operations only
         (derivation and figures: docs/concepts.md). The 256 table entries are int8 on a grid of 0.05, |v| <= 59:
         up to 3 bits a sum over nibbles A[lo] + B[hi] + sign(B2[hi], S[lo]) (shuffles on AVX2),
         at 4 bits the Gaussian quantiles themselves (the nibble form costs 7 % error there).
`1mad`   x = 34038481 s + 76625530 mod 2^32; (sum of the 4 bytes - 510) / 147.800537   (QTIP, arXiv:2406.11235)
`3inst`  x = 89226354 s + 64248484 mod 2^32; masked to two fp16 halves that are added in fp16   (QTIP)

The matrices M were found by random search per rate and state size (`benchmarks/rounding.py --search`), scored on
samples they were not chosen on; they are constants of the format, written into every checkpoint and compared there.
"""

from __future__ import annotations

import functools
import statistics

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

A = (-44, 2, -12, 16, -20, 8, -5, 26, -26, 5, -8, 20, -16, 12, -2, 44)
B = (-2, 0, -1, 1, -1, 1, 0, 1, -1, 0, -1, 1, -1, 1, 0, 2)
B2 = (-13, -7, -10, 0, -12, -4, -9, 6, -13, -5, -10, 2, -11, -2, -8, 13)
TAIL_SIGN = (-1,) + (0,) * 14 + (1,)
GRID = 0.05

# M for (bits, L): one byte for each bit of s >> 8, lowest bit first. Best of 1500 / 500 / 60 random ones at L = 12 / 14 / 16.
MATRICES: dict[tuple[int, int], tuple[int, ...]] = {
    (1, 12): (211, 77, 39, 209),
    (2, 12): (35, 213, 34, 251),
    (3, 12): (169, 161, 164, 3),
    (4, 12): (12, 68, 103, 165),
    (1, 14): (243, 28, 110, 13, 177, 237),
    (2, 14): (21, 228, 225, 199, 9, 98),
    (3, 14): (73, 249, 156, 102, 162, 29),
    (4, 14): (59, 158, 143, 221, 8, 83),
}
# Published examples of h at 2 bits, kept to check the arithmetic.
GOLDEN: dict[int, tuple[int, ...]] = {
    12: (0xB2, 0xE7, 0x82, 0x11),
    14: (0x29, 0x66, 0x9D, 0x09, 0x93, 0x11),
    16: (0x67, 0xAF, 0x49, 0x4A, 0x44, 0x16, 0x9A, 0xDB),
}


def quantile(index: int) -> float:
    """q_i = Phi^-1((i + 1/2) / 256), of unit variance over the 256 indices."""
    values = [statistics.NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]
    return values[index] / (sum(v * v for v in values) / 256) ** 0.5


def table_int8(bits: int) -> np.ndarray:
    """The 256 table entries on the grid of 0.05, int8, indexed by h."""
    if bits == 4:
        order = [int(f"{h:08b}"[::-1], 2) for h in range(256)]
        return np.array([round(quantile(i) / GRID) for i in order], dtype=np.int8)
    high, low = np.arange(256) >> 4, np.arange(256) & 15
    a, b, b2, sign = (np.array(t) for t in (A, B, B2, TAIL_SIGN))
    return (a[low] + b[high] + sign[low] * b2[high]).astype(np.int8)


def h(states: np.ndarray, matrix: tuple[int, ...]) -> np.ndarray:
    """(s & 255) xor the M_i of the set bits i of s >> 8."""
    out = states & 255
    for i, column in enumerate(matrix):
        out = out ^ (((states >> (8 + i)) & 1) * column)
    return out


def g_values(bits: int, L: int, matrix: tuple[int, ...]) -> Float[Tensor, " states"]:
    """The G code for a given matrix."""
    table = table_int8(bits).astype(np.float64)
    unit = table / np.sqrt((table**2).mean())
    return torch.from_numpy(unit[h(np.arange(1 << L), matrix)].astype(np.float32))


def _mad1(L: int) -> np.ndarray:
    x = (np.arange(1 << L, dtype=np.uint64) * 34038481 + 76625530).astype(np.uint32)
    return (x.view(np.uint8).reshape(-1, 4).sum(1).astype(np.float64) - 510) / 147.800537


def _inst3(L: int) -> np.ndarray:
    x = (np.arange(1 << L, dtype=np.uint64) * 89226354 + 64248484).astype(np.uint32)
    x = (x & np.uint32(0x8FFF8FFF)) ^ np.uint32(0x3B603B60)
    halves = x.view(np.uint16).view(np.float16).reshape(-1, 2)
    # The sum is an fp16 addition by definition: done in float32 it gives other numbers.
    return (halves[:, 0] + halves[:, 1]).astype(np.float64)


RAW = {"1mad": _mad1, "3inst": _inst3}
NAMES = ("g", "1mad", "3inst")


@functools.cache
def values(code: str, bits: int, L: int) -> Float[Tensor, " states"]:
    """f(s) for every state, float32. KeyError when the G code has no matrix for (bits, L)."""
    if code == "g":
        return g_values(bits, L, MATRICES[bits, L])
    raw = RAW[code](L)
    return torch.from_numpy((raw / np.sqrt((raw**2).mean())).astype(np.float32))
