"""Does anything read or write where it must not, or race? The native tests under sanitizers.

    python benchmarks/sanitize.py [--quick] [--json FILE]        or: make sanitize

The library is built with AddressSanitizer and UndefinedBehaviorSanitizer (alignment included) into
build/sanitize-*, put in place of the installed one, and the tests of ops and of the native engine
run with it; then with ThreadSanitizer, where tiny models run on two and three threads, and unevenly
divided ones, and must give the tokens of one. Any report ends the process that made it, so a
failing row is a finding; what was said is printed. benchmarks/fuzz.py feeds the same build. GCC or
Clang on Linux.
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
# Emulation and illegal instructions are about builds of their own; a sanitizer has nothing to see
# there.
LEFT_OUT = "not test_emulation and not illegal and not aarch64 and not libgomp and not parks and not missing"
TESTS = ("tests/ops", "tests/inference/native")
QUICK = ("tests/ops/test_matmul.py", "tests/inference/native/test_products.py")


def build(sanitizers: str) -> Path:
    """The folder with libfeatherweight.so and the programs of tests/native, built with
    `sanitizers`.
    """
    folder = ROOT / "build" / f"sanitize-{sanitizers.replace(',', '-')}"
    flags = (f"-DFEATHERWEIGHT_SANITIZE={sanitizers}", "-DFEATHERWEIGHT_CHECKS=ON")
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(folder), *flags],
        ["cmake", "--build", str(folder), "-j2"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return folder


def environment(folder: Path) -> dict[str, str]:
    """For a Python that loads the sanitized library: the run-time libraries must come before
    everything else.
    """
    found = [
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
        "LD_PRELOAD": " ".join(path.strip() for path in found),
        # Python and torch keep memory until they end, which is no leak of ours; the fuzzer looks
        # for leaks.
        "ASAN_OPTIONS": "detect_leaks=0:allocator_may_return_null=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONPATH": paths,
    }


def ran(
    record: Record, what: str, command: list[str], surroundings: Mapping[str, str] | None = None
) -> str:
    """Runs a command as one row and one check; what it said is shown when it failed."""
    start = time.monotonic()
    done = subprocess.run(
        command, env=surroundings, capture_output=True, text=True, check=False, cwd=ROOT
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    record.add(what=what, seconds=time.monotonic() - start, said=lines[-1][:80] if lines else "")
    if not record.check(f"{what}: exit code", abs(done.returncode), at_most=0):
        print(done.stdout[-4000:], done.stderr[-8000:], sep="\n", file=sys.stderr)
    return done.stdout


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("sanitizers", arguments)
    memory, races = build(MEMORY), build(RACES)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", LEFT_OUT]
    ran(
        record,
        f"tests, {MEMORY}",
        [*tests, *(QUICK if arguments.quick else TESTS)],
        environment(memory),
    )
    models = "12" if arguments.quick else "64"
    expected = ran(
        record, f"tokens, 1 thread, {MEMORY}", [str(memory / "tokens"), models, "scalar", "1"]
    )
    for threads in ("2", "3"):
        # Without randomised addresses: older versions of ThreadSanitizer cannot place their shadow
        # among many.
        command = ["setarch", "-R", str(races / "tokens"), models, "scalar", threads]
        found = ran(record, f"tokens, {threads} threads, {RACES}", command)
        record.check(
            f"tokens of {threads} threads that differ", float(found != expected), at_most=0
        )
    ran(record, f"uneven division, {MEMORY}", [str(memory / "shares"), "scalar"])
    ran(record, f"uneven division, {RACES}", ["setarch", "-R", str(races / "shares"), "scalar"])
    return record


if __name__ == "__main__":
    main(run, parser(__doc__))
