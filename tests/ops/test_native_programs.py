"""Programs against the C ABI: wrong numbers for every function, and the same tokens from other
threads and processors.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ops.test_emulation import COMPILER, NATIVE, ROOT, build, portable_sources

from featherweight.ops import library

PROGRAMS = ROOT / "tests" / "native"
CROSS, EMULATOR = shutil.which("aarch64-linux-gnu-g++"), shutil.which("qemu-aarch64")
needs_native = pytest.mark.skipif(library.library() is None, reason="no native library")
pytestmark = pytest.mark.skipif(
    COMPILER is None or not NATIVE.is_dir(), reason="no C++ compiler or no sources"
)

Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds a program of tests/native once, linked to the library under test, and runs it."""
    built: dict[str, Path] = {}

    def output(name: str, *arguments: object) -> str:
        if name not in built:
            path = library.path().resolve()
            target = tmp_path_factory.mktemp("program") / name
            inside = (
                [NATIVE / "shares.cpp"] if name == "shares" else []
            )  # what the library does not show
            built[name] = build(
                target, [PROGRAMS / f"{name}.cpp", *inside, path], f"-Wl,-rpath,{path.parent}"
            )
        command = [str(built[name]), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return output


@needs_native
def test_wrong_numbers_are_refused(run: Run) -> None:
    """Arrays end at pages without access here; `benchmarks/sanitize.py` runs the same under
    AddressSanitizer.
    """
    assert "inputs, no crash" in run("fuzz", "--inputs", 20000, "--seed", 3)


@needs_native
def test_threads_and_isas_give_the_same_tokens(run: Run) -> None:
    expected = run("tokens", 12, "scalar", 1)
    assert expected.count("model") == 12
    for isa in library.available():
        for threads in (1, 2, 3):
            assert run("tokens", 12, isa, threads) == expected, (isa, threads)


@needs_native
def test_uneven_division_changes_no_bit(run: Run) -> None:
    for isa in library.available():
        run("shares", isa)


@needs_native
@pytest.mark.skipif(
    CROSS is None or EMULATOR is None, reason="no aarch64-linux-gnu-g++ or no qemu-aarch64"
)
def test_aarch64_gives_the_same_tokens(run: Run, tmp_path: Path) -> None:
    """The portable objects, cross-compiled as they are: the same tokens and the same bits of every
    logit.
    """
    sources = [*portable_sources(), PROGRAMS / "tokens.cpp"]
    flags = ("-std=c++17", "-O0", "-w", "-ffp-contract=off", "-pthread", "-static", f"-I{NATIVE}")
    target = tmp_path / "tokens"
    subprocess.run(
        [str(CROSS), *flags, *map(str, sources), "-o", str(target)], check=True, timeout=300
    )
    command = [str(EMULATOR), str(target), "12", "scalar", "2"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    assert found == run("tokens", 12)
