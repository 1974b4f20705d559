"""Programs that use the C ABI: hostile inputs, and equal tokens on other threads and processors."""

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
requires_native = pytest.mark.skipif(library.library() is None, reason="no native library")
pytestmark = pytest.mark.skipif(
    COMPILER is None or not NATIVE.is_dir(), reason="no C++ compiler or no sources"
)

Run = Callable[..., str]


def program_sources(name: str) -> list[Path]:
    """A program of tests/native is a file or a folder."""
    if (PROGRAMS / name).is_dir():
        return sorted((PROGRAMS / name).glob("*.cpp"))
    # The library does not export this class, so the program that tests it compiles it.
    library_sources = [NATIVE / "thread_shares.cpp"] if name == "thread_shares" else []
    return [PROGRAMS / f"{name}.cpp", *library_sources]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Builds a program of tests/native once, linked to the library under test, and runs it."""
    programs: dict[str, Path] = {}

    def output(name: str, *arguments: object) -> str:
        if name not in programs:
            path = library.path().resolve()
            target = tmp_path_factory.mktemp("program") / name
            programs[name] = build(
                target, [*program_sources(name), path], f"-Wl,-rpath,{path.parent}"
            )
        command = [str(programs[name]), *map(str, arguments)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    return output


@requires_native
def test_hostile_inputs_are_refused(run: Run) -> None:
    """Arrays end at pages without access here; `benchmarks/sanitize.py` uses AddressSanitizer."""
    assert "inputs, no crash" in run("fuzz", "--inputs", 20000, "--seed", 3)


@requires_native
def test_threads_and_isas_give_the_same_tokens(run: Run) -> None:
    expected = run("tokens", 12, "scalar", 1)
    assert expected.count("model") == 12
    for isa in library.available():
        for threads in (1, 2, 3):
            assert run("tokens", 12, isa, threads) == expected, (isa, threads)


@requires_native
def test_uneven_division_changes_no_bit(run: Run) -> None:
    for isa in library.available():
        run("thread_shares", isa)


@requires_native
@pytest.mark.skipif(
    CROSS is None or EMULATOR is None, reason="no aarch64-linux-gnu-g++ or no qemu-aarch64"
)
def test_aarch64_gives_the_same_tokens(run: Run, tmp_path: Path) -> None:
    """The portable kernels, cross-compiled: the same tokens and the same bits of every logit."""
    sources = [*portable_sources(), PROGRAMS / "tokens.cpp"]
    flags = ("-std=c++17", "-O0", "-w", "-ffp-contract=off", "-pthread", "-static", f"-I{NATIVE}")
    target = tmp_path / "tokens"
    subprocess.run(
        [str(CROSS), *flags, *map(str, sources), "-o", str(target)], check=True, timeout=300
    )
    command = [str(EMULATOR), str(target), "12", "scalar", "2"]
    tokens = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    assert tokens == run("tokens", 12)
