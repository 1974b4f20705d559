"""The hash of trellis code `g`, a linear map over GF(2) from a state of L bits to a byte.

It uses numpy only, because the native engine runs without torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def hash_states(states: NDArray[Any], columns: Sequence[int]) -> NDArray[Any]:
    """h(s) = (s & 255) xor the bytes `columns[i]` of all set bits i of s >> 8, for each state s.

    Args: states, an integer array of any shape, each of 8 + len(columns) bits; columns, the bytes
    of the matrix over GF(2). Returns an array of the same shape and dtype with values of 0 to 255.
    """
    hashes = states & 255
    for i, column in enumerate(columns):
        hashes = hashes ^ (((states >> (8 + i)) & 1) * column)
    return np.asarray(hashes)
