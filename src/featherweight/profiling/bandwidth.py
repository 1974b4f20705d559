"""Bytes a second that memory gives to some threads: the upper bound of every decode, because each
token reads all weights.

Measured over more than twice the largest cache, as the best of several access patterns. This is the
one place that measures bandwidth; benchmarks and the doctor call it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..base import machine
from ..ops import library

MIN_FOOTPRINT = 128_000_000
COPY_BYTES = 1 << 26


@dataclass(frozen=True)
class Bandwidth:
    """A measured bandwidth.

    footprint: the bytes that were read, over and over. threads: that read them together.
    cache_bytes: of the largest cache, 0 where it is not known.
    """

    bytes_per_second: float
    footprint: int
    threads: int
    cache_bytes: int


def footprint_bytes() -> int:
    """Bytes that do not fit any cache of this machine: 2.5 times the largest, at least 128 MB."""
    return max(MIN_FOOTPRINT, machine.cache_bytes() * 5 // 2)


def measure_bandwidth(threads: int, repeats: int = 3) -> Bandwidth | None:
    """The bandwidth of this machine for reads by `threads` threads, the best of `repeats` passes.

    Returns None without the native library, or when the footprint is more than half of the free
    memory. Takes tens of milliseconds a repeat, and `footprint_bytes()` of memory meanwhile.
    """
    native, footprint = library.library(), footprint_bytes()
    if native is None or footprint > machine.available_memory_bytes() // 2:
        return None
    memory = np.ones(footprint, np.uint8)
    rate = float(native.fw_bandwidth(memory.ctypes.data, memory.nbytes, threads, repeats))
    return Bandwidth(rate, footprint, threads, machine.cache_bytes()) if rate > 0 else None


def measure_copy_bandwidth(repeats: int = 4) -> float:
    """Bytes a second, read and written, of a copy of 64 MB by one thread; the best of `repeats`.

    It needs numpy only, so it also works where the native library does not.
    """
    source, target = np.ones(COPY_BYTES // 8), np.empty(COPY_BYTES // 8)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)
