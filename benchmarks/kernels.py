"""Compares the speed of the matrix-vector kernels with the memory bandwidth, for each format and
instruction set.

Each measurement is the product of one token with a matrix that is far larger than the largest
cache. The bandwidth is measured in turns with it, on as many threads. `share` is the bytes of codes
and scales that are read per second, divided by the bandwidth. A kernel that is not limited by the
bandwidth is judged by `weights_per_ns_core`, the weights that one thread processes in a nanosecond.
`instructions` is the number of instructions for 64 weights, counted by single steps through a small
product; it limits the speed at a given clock and number of instructions per cycle.
"""

from __future__ import annotations

import argparse
import ctypes
from typing import Any

import numpy as np
from common import Record, main, new_record, parser
from instructions import count

from featherweight.base import machine
from featherweight.base.statistics import bootstrap_mean
from featherweight.inference.native.abi import StructArena
from featherweight.inference.native.weights import MatrixWeights
from featherweight.ops import library
from featherweight.profiling import measure_bandwidth
from featherweight.profiling.bandwidth import footprint_bytes
from featherweight.profiling.traffic import stored_bytes
from featherweight.quantization.formats import Trellis

COLUMNS = 2048
ROUNDS, QUICK_ROUNDS = 8, 3
COUNTED_KERNELS = ("int4", "trellis2")  # half a minute each
INT_SHARE, TRELLIS_SHARE, AVX2_WEIGHTS = 0.8, 0.6, 14.0


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("kernels: products with one token", arguments, num_seeds=1)
    measure_kernels(
        record,
        arguments.threads or 2,
        QUICK_ROUNDS if arguments.quick else ROUNDS,
        not arguments.quick,
    )
    return record


def measure_kernels(record: Record, threads: int, rounds: int, every_format: bool) -> None:
    """Add rows and checks for the two formats that have targets, and with `every_format` rows for
    the other formats.
    """
    kinds: list[tuple[str, int, int]] = [("int", 4, 32), ("trellis", 2, 0)]
    if every_format:
        kinds += [
            ("int", 2, 32),
            ("int", 3, 32),
            ("int", 8, 32),
            ("trellis", 1, 0),
            ("trellis", 3, 0),
            ("trellis", 4, 0),
        ]
    isas = [isa for isa in library.available() if isa != "scalar"]
    for kind, bits, group in kinds:
        matrix = make(kind, bits, group, footprint_bytes(), record.seeds[0])
        for isa in isas:
            row = measure(matrix, isa, threads, rounds)
            name = f"{kind}{bits}"
            if name in COUNTED_KERNELS and rounds > QUICK_ROUNDS:
                row["instructions"] = instructions(kind, bits, group, isa)
            record.add(kernel=name, isa=isa, threads=threads, load=machine.load_average(), **row)
            interval = f"[{row['share_low']:.2f}, {row['share_high']:.2f}]"
            if name == "int4":
                claim = f"int4 kernel, {isa}: share of the bandwidth {interval}"
                record.check(claim, row["share"], at_least=INT_SHARE)
            elif name == "trellis2" and isa == "avx512":
                claim = f"2-bit trellis kernel, {isa}: share of the bandwidth {interval}"
                record.check(claim, row["share"], at_least=TRELLIS_SHARE)
            elif name == "trellis2":
                claim = f"2-bit trellis kernel, {isa}: weights a nanosecond and core"
                record.check(claim, row["weights_per_ns_core"], at_least=AVX2_WEIGHTS)


def measure(matrix: MatrixWeights, isa: str, threads: int, rounds: int) -> dict[str, Any]:
    """Measure bandwidth and product in turns, `rounds` times. Returns the best of each, and the
    median and the interval of the share in each round.
    """
    native = library.library()
    assert native is not None
    arena = StructArena()  # must live as long as the structure is used
    struct = arena.matrix_struct(matrix)
    size, weights = stored_bytes(matrix), matrix.shape[0] * matrix.shape[1]

    def seconds(count: int) -> float:
        best = float(native.fw_time_product(ctypes.byref(struct), 1, isa.encode(), count, 3))
        if best <= 0:
            raise SystemExit(f"the library does not time this product (status {-best:g})")
        return best

    bandwidths, times, single_thread_times = [], [], []
    for _ in range(rounds):
        bandwidth = measure_bandwidth(threads)
        assert bandwidth is not None
        bandwidths.append(bandwidth.bytes_per_second)
        times.append(seconds(threads))
        single_thread_times.append(seconds(1))
    round_shares = [size / t / b for t, b in zip(times, bandwidths, strict=True)]
    shares = bootstrap_mean(round_shares)
    return {
        "footprint_mb": size / 1e6,
        "bandwidth_gb": max(bandwidths) / 1e9,
        "kernel_gb": size / min(times) / 1e9,
        "share": float(np.median(round_shares)),
        "share_low": shares.low,
        "share_high": shares.high,
        "weights_per_ns": weights / min(times) / 1e9,
        "weights_per_ns_core": weights / min(single_thread_times) / 1e9,
    }


def instructions(kind: str, bits: int, group: int, isa: str) -> float | None:
    """The number of instructions of a product for 64 weights, without those of the call; None when
    they cannot be counted.
    """
    native = library.library()
    assert native is not None
    small = make(kind, bits, group, 256 * COLUMNS * bits // 8, 0)
    arena = StructArena()  # must live as long as the structure is used
    struct = arena.matrix_struct(small)
    count_once, count_twice = (
        count(lambda n=repeats: native.fw_time_product(ctypes.byref(struct), 1, isa.encode(), 1, n))
        for repeats in (1, 2)
    )
    if count_once is None or count_twice is None:
        return None
    return (count_twice - count_once) / (small.shape[0] * small.shape[1] / 64)


def make(kind: str, bits: int, group: int, num_bytes: int, seed: int) -> MatrixWeights:
    """A matrix of random codes, `num_bytes` of them."""
    rows = num_bytes * 8 // bits // COLUMNS // 256 * 256
    codes = np.random.default_rng(seed).integers(0, 256, rows * COLUMNS * bits // 8, dtype=np.uint8)
    if kind == "trellis":
        constants = Trellis(bits=bits).constants()
        return MatrixWeights(
            "trellis",
            (rows, COLUMNS),
            codes,
            bits=bits,
            scales=np.ones(rows, np.float16),
            state_bits=Trellis(bits=bits).L,
            table=tuple(constants["table"]),
            code_matrix=tuple(constants["matrix"]),
        )
    scales = np.ones((rows // 16, COLUMNS // group, 16), np.float16)
    return MatrixWeights(
        "int", (rows, COLUMNS), codes, bits=bits, group=group, scales=scales, zero=1 << (bits - 1)
    )


if __name__ == "__main__":
    main(run, parser(__doc__))
