"""Runs the tests of the native library under sanitizers, to find accesses outside arrays and data
races.

    python benchmarks/sanitize.py [--quick] [--json FILE]        or: make sanitize

The library is built with AddressSanitizer and UndefinedBehaviorSanitizer (with alignment checks) in
build/sanitize-*, and the tests of ops and of the native engine run with this build. Then it is
built with ThreadSanitizer: tiny models run on two and three threads, also with products that are
divided unevenly, and must give the tokens of a single thread. A sanitizer ends the process when it
reports something, so a failed row means that there is a report; the output of its command is
printed. benchmarks/fuzz.py uses the same build. This needs GCC or Clang on Linux.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from common import Record, main, new_record, parser

ROOT = Path(__file__).parents[1]
MEMORY, RACES = "address,undefined", "thread"
# These tests build the library themselves, without sanitizers.
TEST_FILTER = " and ".join(
    f"not {name}"
    for name in ("test_emulation", "illegal", "aarch64", "libgomp", "parks", "missing")
)
TESTS = ("tests/ops", "tests/inference/native")
QUICK = ("tests/ops/test_matmul.py", "tests/inference/native/test_products.py")


def build(sanitizers: str) -> Path:
    """Builds libfeatherweight.so and the programs of tests/native; returns their folder."""
    folder = ROOT / "build" / f"sanitize-{sanitizers.replace(',', '-')}"
    flags = (f"-DFEATHERWEIGHT_SANITIZE={sanitizers}", "-DFEATHERWEIGHT_CHECKS=ON")
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *flags],
        ["cmake", "--build", str(folder), "-j2"],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-4000:]}")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """The environment of a Python that loads the sanitized library.

    The run-time libraries of the sanitizers must be loaded before everything else.
    """
    runtimes = [
        subprocess.run(
            ["c++", f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True
        ).stdout
        for name in ("asan", "ubsan")
    ]
    paths = os.pathsep.join(
        [str(ROOT / "src"), str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]
    )
    return {
        **os.environ,
        "FEATHERWEIGHT_LIBRARY": str(folder / "libfeatherweight.so"),
        "LD_PRELOAD": " ".join(path.strip() for path in runtimes),
        # Python and torch do not free all memory at exit, which the sanitizer would report as
        # leaks. benchmarks/fuzz.py checks for leaks instead.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": paths,
    }


def run_step(
    record: Record, step: str, command: list[str], variables: Mapping[str, str] | None = None
) -> str:
    """Runs a command as one row and one check of the record, and returns its output.

    The output is printed when the command fails.
    """
    start = time.monotonic()
    result = subprocess.run(
        command, env=variables, capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [line for line in result.stdout.splitlines() if line.strip()]
    record.add(what=step, seconds=time.monotonic() - start, output=lines[-1][:80] if lines else "")
    if not record.check(f"{step}: exit code", abs(result.returncode), at_most=0):
        print(result.stdout[-4000:], result.stderr[-8000:], sep="\n", file=sys.stderr)
    return result.stdout


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("sanitizers", arguments)
    memory, races = build(MEMORY), build(RACES)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", TEST_FILTER]
    run_step(
        record,
        f"tests, {MEMORY}",
        [*tests, *(QUICK if arguments.quick else TESTS)],
        environment(memory),
    )
    models = "12" if arguments.quick else "64"
    single_thread_tokens = run_step(
        record, f"tokens, 1 thread, {MEMORY}", [str(memory / "tokens"), models, "scalar", "1"]
    )
    for threads in ("2", "3"):
        # `setarch -R` switches the randomisation of addresses off, because older versions of
        # ThreadSanitizer cannot place their shadow memory at some random layouts.
        command = ["setarch", "-R", str(races / "tokens"), models, "scalar", threads]
        tokens = run_step(record, f"tokens, {threads} threads, {RACES}", command)
        record.check(
            f"tokens of {threads} threads that differ",
            float(tokens != single_thread_tokens),
            at_most=0,
        )
    run_step(record, f"uneven division, {MEMORY}", [str(memory / "thread_shares"), "scalar"])
    run_step(
        record,
        f"uneven division, {RACES}",
        ["setarch", "-R", str(races / "thread_shares"), "scalar"],
    )
    return record


if __name__ == "__main__":
    main(run, parser(__doc__))
