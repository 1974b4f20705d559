"""Measures the error of the trellis codes against the Shannon bound, and the speed of the encoder.

The mean squared error on N(0,1) is measured with tail-biting tiles of 256 samples, for the codes g,
1MAD and 3INST at 1 to 4 bits. The samples are not those on which the constants of the codes were
chosen. Each code gets its own best scale, chosen on other samples. Intervals are bootstrapped over
tiles. Then the streams of the native encoder are compared with those of the reference, and the
encoded weights per second and core are measured in turns for every instruction set.
`--search BITS L SEEDS` searches a better matrix M of the code g.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from common import Record, main, new_record, parser, time_in_turns

from featherweight.base.statistics import bootstrap_mean
from featherweight.ops import library, trellis
from featherweight.quantization.formats import Trellis, trellis_codes
from featherweight.quantization.layouts.trellis import CODES

TARGETS = {2: 0.0700, 3: 0.0184, 4: 0.0049}
EXPECTED_1MAD = {2: 0.0745, 3: 0.0195, 4: 0.0050}
SPEED_TARGET = 1.0e6


def samples(tiles: int, seed: int) -> torch.Tensor:
    return torch.randn(tiles, 256, generator=torch.Generator().manual_seed(987_654 + seed))


def tile_errors(format: Trellis, x: torch.Tensor, gain: float) -> np.ndarray:
    """Mean squared error of each tile over the variance of all samples, encoding x * gain."""
    streams = trellis.encode(x * gain, format.values(), format.L, format.bits)
    light = trellis.decode(streams, format.values(), format.L, format.bits) / gain
    return ((x - light).square().mean(1) / x.square().mean()).double().numpy()


def best_gain(format: Trellis, seed: int) -> float:
    """The scale with the least error, chosen on samples that are used for nothing else."""
    x = samples(60, seed + 1000)
    gains = np.arange(0.80, 1.25, 0.03)
    return float(min(gains, key=lambda g: tile_errors(format, x, float(g)).mean()))


def error_rows(record: Record, tiles: int, seed: int, quick: bool) -> None:
    x = samples(tiles, seed)
    sizes = (12,) if quick else (12, 14)
    for L in sizes:
        for bits in (1, 2, 3, 4):
            for code in CODES:
                format = Trellis(bits=bits, L=L, code=code)
                errors = tile_errors(format, x, best_gain(format, seed))
                mean = bootstrap_mean(errors)
                record.add(
                    what="error",
                    code=code,
                    bits=bits,
                    L=L,
                    mse=mean.mean,
                    low=mean.low,
                    high=mean.high,
                    shannon=4.0**-bits,
                    samples=x.numel(),
                )
                if L == 12 and code == "g" and bits in TARGETS:
                    record.check(
                        f"G code, {bits} bits, L=12: mean squared error",
                        mean.mean,
                        at_most=TARGETS[bits],
                    )
                if L == 12 and code == "1mad" and bits in EXPECTED_1MAD:
                    distance = abs(mean.mean / EXPECTED_1MAD[bits] - 1)
                    record.check(
                        f"1MAD, {bits} bits, L=12: relative distance from {EXPECTED_1MAD[bits]}",
                        distance,
                        at_most=0.05,
                    )
    record.check("held-out samples", float(x.numel()), at_least=100_000)


def equality_rows(record: Record, sets: list[str]) -> None:
    x = samples(6, 5)
    for bits in (1, 2, 3, 4):
        format = Trellis(bits=bits)
        reference_streams = trellis.encode(x, format.values(), 12, bits, isa="reference")
        for isa in sets:
            isa_streams = trellis.encode(x, format.values(), 12, bits, isa=isa)
            num_different = int((isa_streams != reference_streams).sum())
            record.add(
                what="equality", code="g", bits=bits, L=12, isa=isa, different_bytes=num_different
            )
            record.check(
                f"{isa} equals reference, {bits} bits: bytes that differ", num_different, at_most=0
            )


def speed_rows(record: Record, sets: list[str], tiles: int, rounds: int, quick: bool) -> None:
    x = samples(tiles, 7)
    for L in (12,) if quick else (12, 14):
        for bits in (2, 3, 4):
            values = Trellis(bits=bits, L=L).values()
            rivals = {
                isa: (
                    lambda isa=isa, v=values, b=bits, n=L: trellis.encode(
                        x, v, n, b, isa=isa, threads=1
                    )
                )
                for isa in sets
                if isa != "scalar" or L == 12
            }
            for isa, seconds in time_in_turns(rivals, rounds).items():
                rates = x.numel() / np.array(seconds)
                record.add(
                    what="speed",
                    code="g",
                    bits=bits,
                    L=L,
                    isa=isa,
                    weights_per_second_and_core=float(np.median(rates)),
                    low=float(rates.min()),
                    high=float(rates.max()),
                )
                if (isa, L, bits) == ("avx2", 12, 2):
                    best = float(np.median(rates))
                    record.check(
                        "AVX2, 2 bits, L=12: weights a second and core", best, at_least=SPEED_TARGET
                    )


def search(bits: int, L: int, seeds: int) -> None:
    """Try random matrices on a few samples, score the best twelve on other samples, and print the
    best three.
    """
    rng = np.random.default_rng(100 * bits + L)
    screen_samples, held_out_samples = samples(60, 11), samples(300, 12)
    gain = {1: 1.13, 2: 0.97, 3: 0.93, 4: 0.86}[bits]

    def error(matrix: tuple[int, ...], x: torch.Tensor) -> float:
        values = trellis_codes.g_values(bits, L, matrix)
        light = trellis.decode(trellis.encode(x * gain, values, L, bits), values, L, bits) / gain
        return float((x - light).square().mean() / x.square().mean())

    candidates = [tuple(int(v) for v in rng.integers(0, 256, L - 8)) for _ in range(seeds)]
    best = sorted(candidates, key=lambda matrix: error(matrix, screen_samples))[:12]
    for score, matrix in sorted((error(matrix, held_out_samples), matrix) for matrix in best)[:3]:
        print(f"{score:.5f}  {matrix}")


def run(arguments: argparse.Namespace) -> Record:
    torch.set_num_threads(1)
    record = new_record("codes on N(0,1)", arguments)
    sets = [isa for isa in ("scalar", "avx2", "avx512") if isa in library.available()]
    for seed in arguments.seeds:
        error_rows(record, 400 if arguments.quick else 1200, seed, arguments.quick)
    equality_rows(record, sets)
    speed_rows(
        record, sets, 64 if arguments.quick else 200, 3 if arguments.quick else 7, arguments.quick
    )
    return record


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument(
        "--search",
        type=int,
        nargs=3,
        metavar=("BITS", "L", "SEEDS"),
        help="look for a matrix M instead",
    )
    arguments = flags.parse_args()
    if arguments.search:
        search(*arguments.search)
    else:
        main(run, flags)
