"""Bytes a second that memory gives to some threads: the roof over every decode, because a token
reads all weights.

Measured over a footprint above twice the largest cache, as the best of several ways to walk through
it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import machine
from ..ops import library

LEAST = 128_000_000


@dataclass(frozen=True)
class Bandwidth:
    """What was read a second, over how many bytes, by how many threads; `cache_bytes` is 0 where it
    is not known.
    """

    bytes_per_second: float
    footprint: int
    threads: int
    cache_bytes: int


def measure_bandwidth(threads: int, repeats: int = 3) -> Bandwidth | None:
    """The bandwidth of this machine now; None without the native library or the memory for a
    footprint.

    Takes tens of milliseconds a repeat, and 2.5 times the largest cache (at least 128 MB) of memory
    meanwhile.
    """
    native, cache = library.library(), machine.cache_bytes()
    footprint = max(LEAST, cache * 5 // 2)
    if native is None or footprint > machine.available_memory_bytes() // 2:
        return None
    memory = np.ones(footprint, np.uint8)
    rate = float(native.fw_bandwidth(memory.ctypes.data, memory.nbytes, threads, repeats))
    return Bandwidth(rate, footprint, threads, cache) if rate > 0 else None
