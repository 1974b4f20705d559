"""The AVX-512 kernels on any processor: with emulated instructions they equal the reference.

The emulation and a kernel could share one misunderstanding of an instruction. So the emulated
operations are compared with vectors computed here from the vendor's pseudo-code, and with the
instructions themselves where this processor has them.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import featherweight
from featherweight.ops import library

ROOT = Path(__file__).parents[2]
NATIVE = ROOT / "native"
COMPILER = os.environ.get("CXX") or next(
    filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None
)
AVX2 = ["-mavx2", "-mf16c"]
AVX512 = [*AVX2, *(f"-mavx512{part}" for part in ("f", "bw", "dq", "vl", "vnni", "vbmi")), "-mgfni"]

pytestmark = pytest.mark.skipif(
    COMPILER is None or not NATIVE.is_dir(), reason="no C++ compiler or no sources"
)


def build(target: Path, sources: list[Path], *flags: str) -> Path:
    command = [str(COMPILER), "-std=c++17", "-O1", "-w", "-fPIC", "-pthread", f"-I{NATIVE}", *flags]
    subprocess.run([*command, *map(str, sources), "-o", str(target)], check=True, timeout=300)
    return target


def kernels(instruction_set: str) -> Path:
    """The translation unit of one instruction set."""
    return NATIVE / "kernels" / instruction_set / "kernels.cpp"


def portable_sources() -> list[Path]:
    """The library with its portable kernels only."""
    return [*sorted(NATIVE.glob("*.cpp")), kernels("scalar")]


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sources = [*portable_sources(), kernels("avx512"), ROOT / "tests" / "ops" / "probe.cpp"]
    return build(
        tmp_path_factory.mktemp("emulated") / "lib.so",
        sources,
        "-shared",
        "-DFEATHERWEIGHT_EMULATE",
    )


Operands = tuple[np.ndarray, np.ndarray]


def _shuffle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    out = np.zeros(64, np.uint8)
    for i in range(64):
        if not b[i] & 0x80:
            out[i] = a[i // 16 * 16 + (b[i] & 0x0F)]
    return out


def _numbers(a: np.ndarray) -> np.ndarray:
    return a.view("<i2").astype(np.int64)


def _words(a: np.ndarray) -> np.ndarray:
    return a.view("<u2").astype(np.int64)


def _bytes(words: np.ndarray) -> np.ndarray:
    return (words & 0xFFFF).astype("<u2").view(np.uint8)


def _affine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    bits = (a[:, None] >> np.arange(8)) & 1  # byte, bit
    rows = (b.reshape(8, 8)[:, ::-1, None] >> np.arange(8)) & 1  # quadword, result bit, bit
    out = (np.repeat(rows, 8, 0) * bits[:, None, :]).sum(-1) % 2
    return (out << np.arange(8)).sum(-1).astype(np.uint8)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    products = a.astype(np.int64) * b.view(np.int8)
    return (products.reshape(16, 4).sum(1) + a[:4].view("<i4")).astype("<i4").view(np.uint8)


def _two_tables(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.concatenate([a, np.tile(a[:8], 8)])[b & 127]


VECTORS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "permutexvar_epi16": lambda a, b: _bytes(_words(b)[_words(a) % 32]),
    "shuffle_epi8": _shuffle,
    "subs_epi16": lambda a, b: _bytes(np.clip(_numbers(a) - _numbers(b), -32768, 32767)),
    "mulhrs_epi16": lambda a, b: _bytes(((_numbers(a) * _numbers(b) >> 14) + 1) >> 1),
    "adds_epu16": lambda a, b: _bytes(np.minimum(_words(a) + _words(b), 65535)),
    "sub_epi16": lambda a, b: _bytes(_words(a) - _words(b)),
    "min_epu16": lambda a, b: _bytes(np.minimum(_words(a), _words(b))),
    "set1_epi16": lambda a, b: np.tile(a[:2], 32),
    "set1_epi32": lambda a, b: np.tile(a[:4], 16),
    "set1_epi64": lambda a, b: np.tile(a[:8], 8),
    "broadcast_i32x4": lambda a, b: np.tile(a[:16], 4),
    "broadcast_i64x4": lambda a, b: np.tile(a[:32], 2),
    "set1_epi8": lambda a, b: np.tile(a[:1], 64),
    "and_si512": lambda a, b: a & b,
    "or_si512": lambda a, b: a | b,
    "xor_si512": lambda a, b: a ^ b,
    "add_epi32": lambda a, b: (a.view("<u4") + b.view("<u4")).view(np.uint8),
    "srli_epi16": lambda a, b: _bytes(_words(a) >> 3),
    "slli_epi16": lambda a, b: _bytes(_words(a) << 3),
    "gf2p8affine_epi64_epi8": _affine,
    "ternarylogic_epi64": lambda a, b: a ^ b ^ np.tile(a[:8], 8),
    "dpbusd_epi32": _dot,
    "permutex2var_epi8": _two_tables,
    "max_epu8": np.maximum,
    "min_epu8": np.minimum,
    "mask_blend_epi8": lambda a, b: np.where(a & 128, b, a),
    "maskz_loadu_epi8": lambda a, b: np.where(np.unpackbits(a[:8], bitorder="little"), b, 0).astype(
        np.uint8
    ),
}


def operands() -> list[Operands]:
    """Random bytes and every pair of the numbers at which 16-bit arithmetic saturates."""
    generator = np.random.default_rng(0)
    edges = np.array([0, 1, -1, 32767, -32768, -32767, 16384, 127], "<i2")
    first, second = np.repeat(edges, 8), np.tile(edges, 8)
    pairs = [(first[i : i + 32].view(np.uint8), second[i : i + 32].view(np.uint8)) for i in (0, 32)]
    return pairs + [tuple(generator.integers(0, 256, (2, 64), dtype=np.uint8)) for _ in range(20)]


def apply(probe: ctypes._CFuncPtr, name: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b, out = np.ascontiguousarray(a), np.ascontiguousarray(b), np.full(64, 0xA5, np.uint8)
    assert probe(name.encode(), *(ctypes.c_void_p(array.ctypes.data) for array in (a, b, out))) == 0
    return out


@pytest.mark.parametrize("name", VECTORS)
def test_emulation_vectors(emulated: Path, name: str) -> None:
    probe = ctypes.CDLL(str(emulated)).probe_emulated
    for a, b in operands():
        np.testing.assert_array_equal(apply(probe, name, a, b), VECTORS[name](a, b))


@pytest.mark.skipif("avx512" not in library.available(), reason="this processor has no AVX-512")
def test_instructions_agree_with_the_vectors(tmp_path: Path) -> None:
    real = build(tmp_path / "real.so", [ROOT / "tests" / "ops" / "probe.cpp"], "-shared", *AVX512)
    probe = ctypes.CDLL(str(real)).probe_real
    for name, expected in VECTORS.items():
        for a, b in operands():
            np.testing.assert_array_equal(apply(probe, name, a, b), expected(a, b), err_msg=name)


EQUAL = """
import torch
from featherweight.ops import library, trellis
from tests import products
from tests.ops.tables import gaussian, hostile_tiles, hostile_tables
assert library.available() == ("scalar", "avx512"), library.available()
cases = (8, 1, 8), (9, 1, 24), (8, 2, 16), (11, 2, 40), (9, 3, 16), (12, 3, 16)
cases += (9, 4, 24), (8, 4, 8)
for L, k, T in cases:
    x = torch.cat([torch.randn(3, T), hostile_tiles(T)])
    for values in (gaussian(L), *hostile_tables(L).values()):
        expected = trellis.encode(x, values, L, k, isa="reference")
        assert torch.equal(trellis.encode(x, values, L, k, isa="avx512"), expected), (L, k, T)
for matrix, weights in products.few_cases():
    products.check(matrix, weights, ("avx512",))
print("equal")
"""


def test_emulated_kernels_equal_the_reference(emulated: Path) -> None:
    paths = os.pathsep.join(
        [str(Path(featherweight.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    environment = {**os.environ, "FEATHERWEIGHT_LIBRARY": str(emulated), "PYTHONPATH": paths}
    for choice in ("FEATHERWEIGHT_ISA", "FEATHERWEIGHT_NATIVE"):
        environment.pop(choice, None)
    result = subprocess.run(
        [sys.executable, "-c", EQUAL],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=ROOT,
    )
    assert result.stdout.strip() == "equal", result.stderr


@pytest.mark.skipif(not library.available()[1:], reason="no vector instruction set to compile for")
@pytest.mark.parametrize(("name", "flags"), [("avx2", AVX2), ("avx512", AVX512)])
def test_no_illegal_instruction_in_baseline(tmp_path: Path, name: str, flags: list[str]) -> None:
    """The linker could keep a vector object's copy of a function that others define too.

    So these objects may export their table of kernels and nothing else.
    """
    nm = shutil.which("nm")
    if nm is None:
        pytest.skip("no nm")
    options = ("-c", "-O0", "-fno-exceptions")  # nothing is inlined
    target = build(tmp_path / "kernels.o", [kernels(name)], *options, *flags)
    symbols = subprocess.run(
        [nm, "-C", "--defined-only", str(target)], check=True, capture_output=True, text=True
    )
    entries = [line.split(maxsplit=2)[1:] for line in symbols.stdout.splitlines()]
    exports = [symbol for kind, symbol in entries if kind.isupper() and kind not in "RDB"] + [
        symbol for kind, symbol in entries if kind in "wWvVu"
    ]
    assert exports == [f"fw::kernels_{name}()"]
