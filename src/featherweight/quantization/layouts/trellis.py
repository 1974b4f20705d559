"""The layout of `Trellis`, and the constants of its code `g`. formats/trellis.py and
docs/concepts.md describe the format.

Code `g`: a state of L bits is hashed to a byte by a matrix M over GF(2), and the byte indexes a
table of 256 integers on a grid of 0.05 (|v| <= 59). Up to 3 bits the table is a sum over the two
nibbles of the byte, A[low] + B[high] + sign[low] * B2[high], so that AVX2 can look it up with
16-entry shuffles. At 4 bits the table holds the quantiles of the normal distribution, because the
sum would have a 7 % larger error there. The matrices were chosen by random search for each number
of bits and state size (`benchmarks/rounding.py --search`) and scored on other samples. Tables and
matrices are part of the format: every checkpoint stores them, and the reader compares them.
"""

from __future__ import annotations

import functools
import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import Unsupported, UsageError
from ...base.ledger import Ledger
from ...base.spec import ALWAYS_SHOWN
from .base import Decoding, Layout, StoredTensors, round_up

A = (-44, 2, -12, 16, -20, 8, -5, 26, -26, 5, -8, 20, -16, 12, -2, 44)
B = (-2, 0, -1, 1, -1, 1, 0, 1, -1, 0, -1, 1, -1, 1, 0, 2)
B2 = (-13, -7, -10, 0, -12, -4, -9, 6, -13, -5, -10, 2, -11, -2, -8, 13)
TAIL_SIGN = (-1,) + (0,) * 14 + (1,)
GRID = 0.05

# M for (bits, L): a byte for each bit of s >> 8, lowest bit first. Each is the best of 1500 random
# matrices at L = 12, of 500 at L = 14.
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
CODES = ("g", "1mad", "3inst")
SCALE_BITS = 16
BLOCK = 64  # rows and columns are padded to a multiple of it


@dataclass(frozen=True, repr=False)
class TrellisLayout(Layout):
    """Trellis codes.

    bits: 1 to 4 for each weight. L: bits of the state; 14 gives a smaller error than 12, a larger
    state gains too little for its encoding time. code: "g", "1mad" or "3inst". Raises UsageError
    for other values, and for an L for which code g has no matrix.
    """

    bits: int = field(default=2, metadata=ALWAYS_SHOWN)
    L: int = 12
    code: str = "g"

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in (1, 2, 3, 4):
            raise UsageError(f"Trellis(bits={self.bits}): bits must be 1, 2, 3 or 4")
        if self.code not in CODES:
            raise UsageError(f"Trellis(code={self.code!r}): codes are {', '.join(CODES)}")
        if self.code == "g" and (self.bits, self.L) not in MATRICES:
            sizes = sorted(size for rate, size in MATRICES if rate == self.bits)
            raise UsageError(
                f"Trellis(bits={self.bits}, L={self.L}): the g code has L = "
                f"{', '.join(map(str, sizes))}"
            )
        if not 8 <= self.L <= 16:
            raise UsageError(f"Trellis(L={self.L}): L must be 8 to 16")

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        return round_up(shape[0], BLOCK), round_up(shape[1], BLOCK)

    def check(self, shape: tuple[int, int], name: str) -> None:
        return None

    def stored(self, shape: tuple[int, int]) -> StoredTensors:
        rows, columns = self.padded(shape)
        return {"codes": ((rows * columns * self.bits // 8,), "U8"), "scale": ((rows,), "F16")}

    def ledger(self, shape: tuple[int, int]) -> Ledger:
        rows, columns = self.padded(shape)
        weights = shape[0] * shape[1]
        padding = (rows * columns - weights) * self.bits + (rows - shape[0]) * SCALE_BITS
        return Ledger(
            weights,
            {"codes": weights * self.bits, "scales": SCALE_BITS * shape[0], "padding": padding},
        )

    def constants(self) -> dict[str, Any]:
        if self.code != "g":
            return {}
        return {
            "matrix": list(MATRICES[self.bits, self.L]),
            "table": code_table(self.bits).tolist(),
        }

    def decoding(self, shape: tuple[int, int]) -> Decoding:
        if self.code != "g":
            raise Unsupported(
                f"the native engine decodes the trellis code 'g' only, not {self.code!r}"
            )
        constants = _shared_constants(self)
        return Decoding(
            "trellis", self.bits, state_bits=self.L, table=constants[0], hash_columns=constants[1]
        )


@functools.cache
def _shared_constants(layout: TrellisLayout) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The table and the columns of the hash. All matrices of a format get the same objects, so that
    they share one table in the engine.
    """
    return tuple(code_table(layout.bits).tolist()), MATRICES[layout.bits, layout.L]


@functools.cache
def normal_quantiles() -> tuple[float, ...]:
    """q_i = Phi^-1((i + 1/2) / 256) of the 256 indices i, scaled to unit variance over them."""
    values = [statistics.NormalDist().inv_cdf((i + 0.5) / 256) for i in range(256)]
    deviation = (sum(v * v for v in values) / 256) ** 0.5
    return tuple(value / deviation for value in values)


def code_table(bits: int) -> NDArray[np.int8]:
    """The table of code g at `bits` bits a weight: 256 values in units of `GRID`, indexed by the
    hash of a state.
    """
    if bits == 4:
        quantiles = normal_quantiles()
        order = [int(f"{h:08b}"[::-1], 2) for h in range(256)]
        return np.array([round(quantiles[i] / GRID) for i in order], dtype=np.int8)
    high, low = np.arange(256) >> 4, np.arange(256) & 15
    a, b, b2, sign = (np.array(t) for t in (A, B, B2, TAIL_SIGN))
    return (a[low] + b[high] + sign[low] * b2[high]).astype(np.int8)
