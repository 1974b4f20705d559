"""The native library: how it is loaded, which instruction set it chooses, and that forks, threads
and two callers work.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from tests.ops.tables import gaussian

import featherweight
from featherweight.base.errors import UsageError
from featherweight.ops import library, trellis

ROOT = Path(__file__).parents[2]
needs_native = pytest.mark.skipif(library.library() is None, reason="no native library")

ENCODE = """
import logging, sys
logging.basicConfig(stream=sys.stderr, format="%(message)s")
import torch
from featherweight.ops import library, trellis
x = torch.randn(2, 16, generator=torch.Generator().manual_seed(0))
values = torch.linspace(-3, 3, 256)
for _ in range(2):
    streams = trellis.encode(x, values, 8, 2)
print(library.isa(), *library.available(), "|", streams.flatten().tolist())
"""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # A run of all tests may hide a processor feature or name another library, which must hold here
    # too; it must not choose the instruction set or the threads of these processes.
    choices = "FEATHERWEIGHT_ISA", "FEATHERWEIGHT_THREADS", "FEATHERWEIGHT_NATIVE"
    inherited = {key: value for key, value in os.environ.items() if key not in choices}
    paths = os.pathsep.join(
        [str(Path(featherweight.__file__).parents[1]), str(ROOT), os.environ.get("PYTHONPATH", "")]
    )
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**inherited, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def test_fallback_is_logged_once(tmp_path: Path) -> None:
    process = run(ENCODE, FEATHERWEIGHT_LIBRARY=str(tmp_path / "absent.so"))
    assert process.stdout.startswith("reference |")
    assert process.stderr.count("native library not available") == 1
    assert "slower PyTorch reference" in process.stderr


def test_a_file_that_is_no_library_falls_back(tmp_path: Path) -> None:
    (tmp_path / "broken.so").write_bytes(b"not ELF")
    assert run(ENCODE, FEATHERWEIGHT_LIBRARY=str(tmp_path / "broken.so")).stdout.startswith(
        "reference |"
    )


def test_native_can_be_switched_off_and_gives_the_same_bytes() -> None:
    off = run(ENCODE, FEATHERWEIGHT_NATIVE="0")
    assert off.stdout.startswith("reference |")
    assert off.stderr == ""
    assert off.stdout.split("|")[1] == run(ENCODE).stdout.split("|")[1]


# Without torch, whose import is most of the time of the others.
CHOOSE = f"""
import ctypes
native = ctypes.CDLL({str(library.path())!r})
native.fw_isa.restype = native.fw_isa_message.restype = ctypes.c_char_p
names = [name for name in ("scalar", "avx2", "avx512") if native.fw_isa_available(name.encode())]
message = native.fw_isa_message().decode()
print(native.fw_isa().decode(), *names, "|", message, "|", native.fw_threads())
"""


def choose(**environment: str) -> tuple[list[str], str, int]:
    """The default and all instruction sets, the message, the number of threads."""
    names, message, threads = run(CHOOSE, **environment).stdout.split("|")
    return names.split(), message.strip(), int(threads)


@needs_native
@pytest.mark.parametrize("isa", library.available())
def test_isa_override(isa: str) -> None:
    assert choose(FEATHERWEIGHT_ISA=isa)[0][0] == isa


@needs_native
def test_unknown_isa_falls_back_and_says_so() -> None:
    process = run(ENCODE, FEATHERWEIGHT_ISA="avx1024")
    assert process.stdout.split()[0] == library.available()[-1]
    assert process.stderr.count("FEATHERWEIGHT_ISA=avx1024 cannot run on this machine; using") == 1


@needs_native
@pytest.mark.parametrize(
    ("feature", "disabled_isas"),
    [
        ("avx512f", "avx512"),
        ("avx512bw", "avx512"),
        ("avx512dq", "avx512"),
        ("avx512vl", "avx512"),
        ("avx512vnni", "avx512"),
        ("avx512vbmi", "avx512"),
        ("gfni", "avx512"),
        ("avx2", "avx2 avx512"),
    ],
)
def test_dispatch_needs_every_feature(feature: str, disabled_isas: str) -> None:
    isas = [isa for isa in library.available() if isa not in disabled_isas.split()]
    hidden_features = f"{os.environ.get('FEATHERWEIGHT_MISSING', '')} {feature}"
    names, message, _ = choose(
        FEATHERWEIGHT_MISSING=hidden_features, FEATHERWEIGHT_ISA=disabled_isas.split()[0]
    )
    assert names == [isas[-1], *isas]
    assert "cannot run on this machine" in message


@needs_native
def test_thread_count_comes_from_the_environment() -> None:
    assert choose(FEATHERWEIGHT_THREADS="3")[2] == 3
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert choose()[2] == num_cores


@needs_native
def test_isa_that_cannot_run_is_an_error() -> None:
    code = """
import torch
import featherweight
from featherweight.base.errors import UsageError
from featherweight.ops import trellis
for isa in ("avx2", "avx512", "sse9"):
    try:
        trellis.encode(torch.zeros(1, 16), torch.zeros(256), 8, 2, isa=isa)
    except UsageError as error:
        print(error)
"""
    lines = run(code, FEATHERWEIGHT_MISSING="avx2").stdout.splitlines()
    assert len(lines) == 3
    assert "cannot run that isa; it has scalar" in lines[0]
    assert "'sse9' is not one of scalar, avx2, avx512" in lines[2]


def test_wrong_sizes_and_types_are_clear_errors() -> None:
    """In a process of its own, without the type checker that answers first in the tests."""
    code = """
import torch
import featherweight
from featherweight.base.errors import UsageError
from featherweight.ops import hadamard, matmul, trellis
x, v, u8 = torch.zeros(2, 16), torch.zeros(256), torch.uint8
empty, scale = torch.zeros(64 * 64 * 2 // 8, dtype=u8), torch.ones(4, 1, 16)
cases = [
    lambda: trellis.encode(x, v, 8, 5),
    lambda: trellis.encode(x, v, 7, 2),
    lambda: trellis.encode(x[:, :12], v, 8, 2),
    lambda: trellis.encode(x[:, :8], torch.zeros(1 << 12), 12, 1),
    lambda: trellis.encode(x, v[:255], 8, 2),
    lambda: trellis.encode(x.double(), v, 8, 2),
    lambda: trellis.encode(x[0], v, 8, 2),
    lambda: trellis.decode(torch.zeros(2, 5, dtype=u8), v, 8, 2),
    lambda: trellis.decode(x, v, 8, 2),
    lambda: matmul.trellis_dense(empty, 64, 96, v, 8, 2, torch.ones(64)),
    lambda: matmul.trellis_dense(empty[1:], 64, 64, v, 8, 2, torch.ones(64)),
    lambda: matmul.trellis_dense(empty, 64, 64, v, 8, 2, torch.ones(63)),
    lambda: matmul.int_dense(empty, 64, 64, 2, 64, torch.ones(64, 1)),
    lambda: matmul.int_dense(empty, 64, 64, 3, 64, torch.ones(4, 1, 16)),
    lambda: matmul.int_dense(empty, 64, 64, 2, 0, torch.ones(4, 1, 16)),
    lambda: matmul.int_dense(empty, 64, 64, 2, 64, scale, indices=torch.tensor([64])),
    lambda: hadamard.transform(torch.zeros(3, 0)),
]
for case in cases:
    try:
        case()
    except UsageError as error:
        print(error)
print(len(cases))
"""
    lines = run(code).stdout.splitlines()
    assert len(lines) == 1 + int(lines[-1]), lines


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_pool_survives_fork() -> None:
    code = """
import os, torch
from featherweight.ops import trellis
x, values = torch.randn(64, 64), torch.linspace(-3, 3, 256)
expected = trellis.encode(x, values, 8, 2, threads=3)
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(trellis.encode(x, values, 8, 2, threads=3), expected) else 1)
    assert os.waitpid(child, 0)[1] == 0
assert torch.equal(trellis.encode(x, values, 8, 2, threads=3), expected)
print("survived")
"""
    assert run(code).stdout.strip() == "survived"


@needs_native
def test_two_callers_at_once() -> None:
    x, values = torch.randn(48, 64), gaussian(10)
    streams = trellis.encode(x, values, 10, 2, threads=1)
    failures: list[int] = []

    def call(index: int) -> None:
        for _ in range(5):
            if not torch.equal(trellis.encode(x, values, 10, 2, threads=3), streams):
                failures.append(index)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert failures == []


@needs_native
def test_pool_parks_when_idle() -> None:
    trellis.encode(torch.randn(64, 64), gaussian(8), 8, 2, threads=4)
    time.sleep(0.02)
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.1


@needs_native
def test_no_libgomp_linked() -> None:
    path = library.path()
    assert b"libgomp" not in path.read_bytes()
    readelf = shutil.which("readelf")
    if readelf:
        output = subprocess.run(
            [readelf, "-d", str(path)], check=True, capture_output=True, text=True
        ).stdout
        libraries = [line for line in output.splitlines() if "NEEDED" in line]
        assert not any("omp" in line for line in libraries), libraries


def test_unknown_isa_is_an_error() -> None:
    if library.library() is None:
        pytest.skip("no native library")
    with pytest.raises(UsageError, match="not one of"):
        trellis.encode(torch.zeros(1, 16), gaussian(8), 8, 2, isa="mmx")
