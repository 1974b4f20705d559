"""Compares the decoding speed of packed models with that of llama.cpp on the same machine, with two
threads each.

There are two models: SmolLM2-135M with real weights, and a Llama of a billion weights with random
codes, whose rows are long enough for the 2-bit types of llama.cpp. The contenders of a model take
turns. One round is the prefill of a prompt of 512 tokens, then the decoding of 128 tokens. Our
decoding time includes the choice of the largest logit; llama-bench decodes random tokens and
chooses none. llama.cpp is built for this processor (`peers.py`). When the processor has AVX-512,
our engine limited to AVX2 is compared with a second build of llama.cpp that is limited to AVX2; the
ratio to the first build is printed as well. A ratio is the geometric mean over pairs of rounds,
with its bootstrap interval.

The Q4_0 file of llama.cpp has every matrix in Q4_0 (`--pure`), which makes it as small as possible.
Its fastest file of at most 4.5 bits is found by measuring the candidates first. When other
processes use the machine, the ratios are unreliable, because the threads of both programs wait for
each other. `others` is the number of cores that other processes used; a check fails when it is more
than a tenth. The kernels alone (`kernels.py`) and the bandwidth are measured at the end.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import OtherProcesses, Record, main, new_record, parser
from folders import MODEL, llama_1b, packed_folder, quantized_folder
from kernels import QUICK_ROUNDS, measure_kernels
from kernels import ROUNDS as KERNEL_ROUNDS
from peers import Build, File, build, build_avx2, quantized_file, random_file

from featherweight.base import machine
from featherweight.base.statistics import Interval, bootstrap_mean
from featherweight.inference.native.reader import open_runtime
from featherweight.interchange.cache import cache_folder
from featherweight.ops import library
from featherweight.profiling import Speed, bytes_per_token, measure_bandwidth, measure_speed
from featherweight.quantization.formats import Int, Trellis

PROMPT, TOKENS, ROUNDS = 512, 128, 7
MAX_BITS = 4.55  # 4.5 bits, and a margin for vectors and the header
# The largest number of cores that other processes may use. Threads that wait for each other lose
# far more time than these processes use.
QUIET = 0.1
CANDIDATES = (("Q4_0", True), ("Q2_K", True), ("Q3_K_S", True), ("IQ4_NL", True), ("Q2_0", True))


@dataclass(frozen=True)
class Contender:
    """One engine with one file. `round` measures one round with a seed; `size`: bytes of the file;
    `token_bytes`: bytes that are read for one token.
    """

    name: str
    round: Callable[[int], Speed]
    size: int
    token_bytes: int


@dataclass(frozen=True)
class Claim:
    """Our contender `our_name` is at least `decode` (and `prefill`) times as fast as `rival_name`.

    second_rival: another rival, whose ratio is printed without a bound.
    """

    our_name: str
    rival_name: str
    decode: float
    prefill: float | None = None
    second_rival: str | None = None


@dataclass(frozen=True)
class Rival:
    """A file and the build of llama.cpp that runs it."""

    name: str
    file: File
    program: Build


@dataclass(frozen=True)
class Builds:
    """The build of llama.cpp for this processor, and the builds to compare with by the instruction
    set of our engine.
    """

    native: Build
    by_isa: dict[str, Build]

    def rival(self, isa: str, file: File) -> Rival:
        program = self.by_isa[isa]
        return Rival(
            file.name if program is self.native else f"{file.name} ({isa} build)", file, program
        )

    def claim(self, our_name: str, isa: str, file: File, decode: float) -> Claim:
        rival = self.rival(isa, file)
        return Claim(
            f"{our_name} {isa}",
            rival.name,
            decode,
            second_rival=None if rival.name == file.name else file.name,
        )


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("decode: ours and llama.cpp's, in turns", arguments, num_seeds=1)
    threads = arguments.threads or 2
    rounds = arguments.rounds or (2 if arguments.quick else ROUNDS)
    isas = [isa for isa in ("avx512", "avx2") if isa in library.available()]
    native = build()
    builds = Builds(native, {isa: native if isa == isas[0] else build_avx2() for isa in isas})
    facts = {isa: program.facts for isa, program in builds.by_isa.items()}
    record.facts |= {
        "llama": facts,
        "prompt": PROMPT,
        "tokens": TOKENS,
        "rounds": rounds,
        "used": threads,
    }
    if arguments.model != "1b":
        compare(record, "SmolLM2-135M", *smollm2(builds, arguments, isas, threads), rounds, threads)
    if arguments.model != "smollm2":
        compare(record, "1B shape", *billion(builds, isas, record.seeds[0]), rounds, threads)
    measure_kernels(
        record, threads, QUICK_ROUNDS if arguments.quick else KERNEL_ROUNDS, every_format=False
    )
    return record


def smollm2(
    builds: Builds, arguments: argparse.Namespace, isas: list[str], threads: int
) -> tuple[list[tuple[str, Path, str]], list[Rival], list[Claim]]:
    int4 = arguments.int4 or quantized_folder("int4", "Int(bits=4,group=32)", 4)
    trellis = arguments.trellis or quantized_folder("trellis2", "Trellis(bits=2)", 2)
    home = cache_folder() / "bench" / "smol"
    files = {
        name: quantized_file(builds.native, MODEL, home, name, pure) for name, pure in CANDIDATES
    }
    weights = 134_515_008
    light = [file for file in files.values() if 8 * file.size / weights <= MAX_BITS]

    def fastest(isa: str) -> File:
        bench = builds.by_isa[isa].bench
        return max(
            light,
            key=lambda file: max(bench.measure(file.path, 1, 64, threads).decode for _ in range(3)),
        )

    our_folders = [
        (f"{name} {isa}", path, isa)
        for isa in isas
        for name, path in (("int4", int4), ("trellis2", trellis))
    ]
    rivals = [
        builds.rival(isas[0], file)
        for file in (files["Q4_0"], quantized_file(builds.native, MODEL, home, "Q4_0", False))
    ]
    claims = [Claim(f"int4 {isas[0]}", files["Q4_0"].name, 1.2, 1.0)]
    for isa in isas:
        best = fastest(isa)
        rivals += [builds.rival(isas[0], best), builds.rival(isa, best)]
        claims.append(builds.claim("trellis2", isa, best, 1.5 if isa == "avx512" else 1.0))
    return our_folders, list({rival.name: rival for rival in rivals}.values()), claims


def billion(
    builds: Builds, isas: list[str], seed: int
) -> tuple[list[tuple[str, Path, str]], list[Rival], list[Claim]]:
    config, home = llama_1b(), cache_folder() / "bench"
    int4 = packed_folder(
        config, home / "1b-int4", Int(bits=4, group=32), Int(bits=4, group=32), seed
    )
    trellis = packed_folder(
        config, home / "1b-trellis2", Trellis(bits=2), Int(bits=4, group=64), seed
    )
    files = [
        random_file(config, home / "1b", kind, table, seed)
        for kind, table in (("Q4_0", "Q4_0"), ("Q2_K", "Q2_K"))
    ]
    files.append(random_file(config, home / "1b", "IQ2_XXS", "Q2_K", seed))
    our_folders = [
        (f"{name} {isa}", path, isa)
        for isa in isas
        for name, path in (("int4", int4), ("trellis2", trellis))
    ]
    rivals = [builds.rival(isas[0], file) for file in files]
    claims = [Claim(f"int4 {isas[0]}", "Q4_0", 1.2, 1.0)]
    rival_files = {"avx512": files[1], "avx2": files[2]}
    for isa in isas:
        rivals.append(builds.rival(isa, rival_files[isa]))
        claims.append(builds.claim("trellis2", isa, rival_files[isa], 1.2))
    return our_folders, list({rival.name: rival for rival in rivals}.values()), claims


def compare(
    record: Record,
    model: str,
    our_folders: list[tuple[str, Path, str]],
    rivals: list[Rival],
    claims: Iterable[Claim],
    rounds: int,
    threads: int,
) -> None:
    """Measure all contenders in turns; add a row for each, and a check for every claim."""
    bandwidth = measure_bandwidth(threads)
    other_processes = OtherProcesses()
    with ExitStack() as stack:
        contenders = [
            _our_contender(stack, name, path, isa, threads) for name, path, isa in our_folders
        ]
        contenders += [_rival_contender(rival, threads) for rival in rivals]
        speeds: dict[str, list[Speed]] = {contender.name: [] for contender in contenders}
        for number in range(rounds):
            for contender in contenders:
                speeds[contender.name].append(contender.round(number))
                print(
                    f"  {model} round {number + 1}: {contender.name} {speeds[contender.name][-1]}",
                    file=sys.stderr,
                )
    busy_cores = other_processes.busy_cores()
    for contender in contenders:
        decode, prefill = (
            bootstrap_mean([getattr(s, name) for s in speeds[contender.name]])
            for name in ("decode", "prefill")
        )
        best = max(s.decode for s in speeds[contender.name])
        row: dict[str, Any] = {
            "file_mb": contender.size / 1e6,
            "token_mb": contender.token_bytes / 1e6,
        }
        row |= {
            "decode": decode.mean,
            "decode_low": decode.low,
            "decode_high": decode.high,
            "decode_best": best,
        }
        row |= {"prefill": prefill.mean, "prefill_low": prefill.low, "prefill_high": prefill.high}
        if bandwidth is not None:
            row |= {"bandwidth_share": contender.token_bytes * best / bandwidth.bytes_per_second}
        row |= {"cpu": machine.cpu_name(), "load": machine.load_average(), "others": busy_cores}
        round_entry = {"rounds": [vars(speed) for speed in speeds[contender.name]]}
        record.add(model=model, contender=contender.name, threads=threads, **row, **round_entry)
    sizes = {contender.name: contender.size for contender in contenders}
    record.check(
        f"{model}: cores that other processes kept busy meanwhile", busy_cores, at_most=QUIET
    )
    for claim in claims:
        _check(record, model, claim, speeds, sizes)


def _check(
    record: Record, model: str, claim: Claim, speeds: dict[str, list[Speed]], sizes: dict[str, int]
) -> None:
    def ratio(rival_name: str, name: str) -> Interval:
        pairs = zip(speeds[claim.our_name], speeds[rival_name], strict=True)
        return bootstrap_mean(
            [math.log(getattr(a, name) / getattr(b, name)) for a, b in pairs]
        ).map(math.exp)

    for name, target in (("decode", claim.decode), ("prefill", claim.prefill)):
        if target is None:
            continue
        mean_ratio = ratio(claim.rival_name, name)
        # The best round of each contender is the one that other processes disturbed least.
        best = max(getattr(s, name) for s in speeds[claim.our_name]) / max(
            getattr(s, name) for s in speeds[claim.rival_name]
        )
        share = sizes[claim.our_name] / sizes[claim.rival_name]
        detail = f"[{mean_ratio.low:.2f}, {mean_ratio.high:.2f}], best over best {best:.2f}, "
        detail += f"{share:.2f} of its bytes"
        if claim.second_rival:
            second_ratio = ratio(claim.second_rival, name)
            detail += f"; over the build for this processor {second_ratio.mean:.2f} "
            detail += f"[{second_ratio.low:.2f}, {second_ratio.high:.2f}]"
        record.check(
            f"{model}: {name} of {claim.our_name} over llama.cpp {claim.rival_name} {detail}",
            mean_ratio.mean,
            at_least=target,
        )


def _our_contender(stack: ExitStack, name: str, path: Path, isa: str, threads: int) -> Contender:
    engine = open_runtime(path, threads=threads, isa=isa)
    stack.callback(engine.close)
    measure_speed(engine, 64, 2)
    size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
    return Contender(
        name,
        lambda seed: measure_speed(engine, PROMPT, TOKENS, seed),
        size,
        bytes_per_token(engine.model),
    )


def _rival_contender(rival: Rival, threads: int) -> Contender:
    bench, file = rival.program.bench, rival.file
    return Contender(
        rival.name,
        lambda seed: bench.measure(file.path, PROMPT, TOKENS, threads),
        file.size,
        file.size,
    )


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument("--model", choices=("smollm2", "1b", "both"), default="both")
    flags.add_argument(
        "--rounds", type=int, metavar="N", help=f"rounds of every contender ({ROUNDS})"
    )
    flags.add_argument(
        "--int4",
        type=Path,
        metavar="FOLDER",
        help="SmolLM2 in int4 with a 4-bit head, instead of making it",
    )
    flags.add_argument("--trellis", type=Path, metavar="FOLDER", help="the same in 2-bit trellis")
    main(run, flags)
