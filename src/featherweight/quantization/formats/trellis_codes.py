"""The codes of the bitshift trellis: the functions f from a state of L bits to a value.

Each is a table of 2^L float32 values with zero mean and unit variance over uniform states.

`g`      table[h(s)] with h(s) = (s & 255) xor M (s >> 8). The hash h is linear over GF(2), so byte
         operations are enough to decode it. Its matrices and tables are constants of the layout
         (`layouts/trellis.py`); docs/concepts.md has the derivation and figures.
`1mad`   x = 34038481 s + 76625530 mod 2^32; (sum of the 4 bytes - 510) / 147.800537
`3inst`  x = 89226354 s + 64248484 mod 2^32; masked to two fp16 halves, which are added in fp16

The last two are QTIP's (arXiv:2406.11235).
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...ops.gf2 import hash_states
from ..layouts.trellis import MATRICES, code_table


def g_values(bits: int, L: int, matrix: Sequence[int]) -> Float[Tensor, " states"]:
    """The values of code g for the table of `bits` bits and the hash matrix `matrix` (L - 8
    bytes).
    """
    table = code_table(bits).astype(np.float64)
    unit = table / np.sqrt((table**2).mean())
    return torch.from_numpy(unit[hash_states(np.arange(1 << L), matrix)].astype(np.float32))


def _mad1_values(L: int) -> np.ndarray:
    x = (np.arange(1 << L, dtype=np.uint64) * 34038481 + 76625530).astype(np.uint32)
    return (x.view(np.uint8).reshape(-1, 4).sum(1).astype(np.float64) - 510) / 147.800537


def _inst3_values(L: int) -> np.ndarray:
    x = (np.arange(1 << L, dtype=np.uint64) * 89226354 + 64248484).astype(np.uint32)
    x = (x & np.uint32(0x8FFF8FFF)) ^ np.uint32(0x3B603B60)
    halves = x.view(np.uint16).view(np.float16).reshape(-1, 2)
    # The sum is an fp16 addition by definition: in float32 it would give other numbers.
    return (halves[:, 0] + halves[:, 1]).astype(np.float64)


RAW_VALUES = {"1mad": _mad1_values, "3inst": _inst3_values}


@functools.cache
def code_values(code: str, bits: int, L: int) -> Float[Tensor, " states"]:
    """f(s) of every state s, float32 on the CPU. The result is cached, so callers must not change
    it.

    Raises KeyError when code g has no matrix for (bits, L).
    """
    if code == "g":
        return g_values(bits, L, MATRICES[bits, L])
    raw = RAW_VALUES[code](L)
    return torch.from_numpy((raw / np.sqrt((raw**2).mean())).astype(np.float32))
