"""How near do the codes come to the Shannon bound, and how fast are they found?

Mean squared error on N(0,1) with tail-biting tiles of 256, over samples that no constant was chosen
on, at the scale that the format itself fits: the G code at 1 to 4 bits beside 1MAD and 3INST on the
same samples. Intervals are bootstrapped over tiles. Then: native equals reference code for code,
and weights a second and core for every instruction set (both tail-biting passes counted), taken in
turns. `--search K L SEEDS` looks for a better matrix M of the G code.
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
    """The encoder's scale for a code, chosen on samples of its own."""
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
                found = bootstrap_mean(errors)
                record.add(
                    what="error",
                    code=code,
                    bits=bits,
                    L=L,
                    mse=found.mean,
                    low=found.low,
                    high=found.high,
                    shannon=4.0**-bits,
                    samples=x.numel(),
                )
                if L == 12 and code == "g" and bits in TARGETS:
                    record.check(
                        f"G code, {bits} bits, L=12: mean squared error",
                        found.mean,
                        at_most=TARGETS[bits],
                    )
                if L == 12 and code == "1mad" and bits in EXPECTED_1MAD:
                    off = abs(found.mean / EXPECTED_1MAD[bits] - 1)
                    record.check(
                        f"1MAD, {bits} bits, L=12: relative distance from {EXPECTED_1MAD[bits]}",
                        off,
                        at_most=0.05,
                    )
    record.check("held-out samples", float(x.numel()), at_least=100_000)


def equality_rows(record: Record, sets: list[str]) -> None:
    x = samples(6, 5)
    for bits in (1, 2, 3, 4):
        format = Trellis(bits=bits)
        want = trellis.encode(x, format.values(), 12, bits, isa="reference")
        for isa in sets:
            got = trellis.encode(x, format.values(), 12, bits, isa=isa)
            different = int((got != want).sum())
            record.add(
                what="equality", code="g", bits=bits, L=12, isa=isa, different_bytes=different
            )
            record.check(
                f"{isa} equals reference, {bits} bits: bytes that differ", different, at_most=0
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
    """Random matrices, screened on few samples; the best twelve are scored on others."""
    rng = np.random.default_rng(100 * bits + L)
    screen, held = samples(60, 11), samples(300, 12)
    gain = {1: 1.13, 2: 0.97, 3: 0.93, 4: 0.86}[bits]

    def error(matrix: tuple[int, ...], x: torch.Tensor) -> float:
        values = trellis_codes.g_values(bits, L, matrix)
        light = trellis.decode(trellis.encode(x * gain, values, L, bits), values, L, bits) / gain
        return float((x - light).square().mean() / x.square().mean())

    tried = [tuple(int(v) for v in rng.integers(0, 256, L - 8)) for _ in range(seeds)]
    best = sorted(tried, key=lambda matrix: error(matrix, screen))[:12]
    for score, matrix in sorted((error(matrix, held), matrix) for matrix in best)[:3]:
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
