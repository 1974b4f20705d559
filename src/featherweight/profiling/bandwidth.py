"""Measures the bandwidth of the memory in bytes per second. It limits the speed of decoding,
because all weights are read for each token.

The measurement reads more than twice the size of the largest cache, and uses the best of several
access patterns. Benchmarks, `bench` and `doctor` all use this module.
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

    footprint: the size in bytes of the memory that was read repeatedly. threads: the number of
    threads that read. cache_bytes: the size of the largest cache, 0 when it is unknown.
    """

    bytes_per_second: float
    footprint: int
    threads: int
    cache_bytes: int


def footprint_bytes() -> int:
    """The size in bytes of memory that fits no cache of this machine: 2.5 times the largest cache,
    at least 128 MB.
    """
    return max(MIN_FOOTPRINT, machine.cache_bytes() * 5 // 2)


def measure_bandwidth(threads: int, repeats: int = 3) -> Bandwidth | None:
    """The bandwidth of this machine for reads by `threads` threads, the best of `repeats` passes.

    Returns None without the native library, or when the footprint is more than half of the free
    memory. A pass takes tens of milliseconds; the measurement needs `footprint_bytes()` of memory.
    """
    native, footprint = library.library(), footprint_bytes()
    if native is None or footprint > machine.available_memory_bytes() // 2:
        return None
    memory = np.ones(footprint, np.uint8)
    rate = float(native.fw_bandwidth(memory.ctypes.data, memory.nbytes, threads, repeats))
    return Bandwidth(rate, footprint, threads, machine.cache_bytes()) if rate > 0 else None


def measure_copy_bandwidth(repeats: int = 4) -> float:
    """The bytes per second that one thread reads and writes when it copies 64 MB; the best of
    `repeats` copies.

    It needs numpy only, so it also works without the native library.
    """
    source, target = np.ones(COPY_BYTES // 8), np.empty(COPY_BYTES // 8)
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        np.copyto(target, source)
        seconds.append(time.perf_counter() - start)
    return 2 * source.nbytes / min(seconds)
