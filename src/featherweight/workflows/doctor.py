"""`doctor`: checks whether this installation works and what it can run.

Facts come first: versions, packages that contradict each other, native library, memory, disk,
accelerator, network switches. Then self-tests run the real code on small examples: packed codes
decode to the numbers that were packed, the native library gives the reference's bytes, and a
model's KL from itself is zero. A check that cannot run is a finding and not a crash, so that the
doctor also works in a broken installation. `essential` checks decide the exit code; the others are
advice. Details hold no path below the home folder, no host name and no secret, so the output can be
pasted into a bug report.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ..base import machine

PACKAGE = "featherweight"
# Packages that may need other versions of shared packages than we do. Each of them works in an
# environment of its own.
NEIGHBOURS = (
    "vllm",
    "sglang",
    "llmcompressor",
    "gptqmodel",
    "auto-round",
    "torchao",
    "compressed-tensors",
    "trl",
)
SHARED_PACKAGES = (
    "torch",
    "transformers",
    "compressed-tensors",
    "huggingface-hub",
    "numpy",
    "safetensors",
)
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
ADVISED_MEMORY = 6_000_000_000
ADVISED_DISK = 2_000_000_000


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    name: what was checked. ok: whether it succeeded. essential: whether the exit code depends on
    it. detail: what was found. advice: what to do when it is not `ok`.
    """

    name: str
    ok: bool
    essential: bool
    detail: str
    advice: str = ""


def doctor() -> list[Finding]:
    """Run every check, the quick ones first.

    Takes a few seconds, most of them to import torch and transformers.
    """
    checks = [_python(), *_versions(), _conflicts(), _processor(), _native(), _accelerator()]
    checks += [_memory(), _bandwidth(), _disk(), _offline()]
    tests: tuple[tuple[str, bool, Callable[[], str]], ...] = (
        ("self-test: pack and unpack", True, _pack_unpack),
        ("self-test: native equals reference", True, _native_equals_reference),
        ("self-test: native products", True, _native_products),
        ("self-test: KL with itself is 0", True, _kl_with_itself),
    )
    return checks + [_attempt(*test) for test in tests]


def without_paths(text: str) -> str:
    """`text` without the paths of the environment and of the home folder."""
    for path, name in ((sys.prefix, "<environment>"), (str(Path(__file__).parents[2]), "<source>")):
        text = text.replace(path, name)
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def _attempt(name: str, essential: bool, test: Callable[[], str]) -> Finding:
    start = time.monotonic()
    try:
        detail = test()
    except Exception as error:  # whatever fails here is a finding
        first_line = (str(error).strip().splitlines() or [""])[0]
        detail = without_paths(f"{type(error).__name__}: {first_line}")
        return Finding(name, False, essential, detail)
    return Finding(name, True, essential, f"{detail} ({time.monotonic() - start:.1f} s)")


def _python() -> Finding:
    ok = sys.version_info >= (3, 11)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Finding("python", ok, True, detail, "featherweight needs Python 3.11 or newer")


def _requirements(package: str) -> Iterator[tuple[str, str]]:
    """Name and version range of each package that the installed `package` requires without extras;
    nothing when it is not installed.
    """
    from packaging.requirements import Requirement

    try:
        lines = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        return
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name, str(requirement.specifier)


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _in_range(version: str, specifier: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(specifier).contains(version, prereleases=True)


def _versions() -> list[Finding]:
    """One check for each of our requirements: whether the installed version lies in the range that
    our package declares.
    """
    version = _installed_version(PACKAGE)
    if version is None:
        return [
            Finding(
                PACKAGE,
                False,
                False,
                "runs from its source, not installed",
                "pip install . checks versions",
            )
        ]
    checks = [Finding(PACKAGE, True, True, version)]
    for name, specifier in _requirements(PACKAGE):
        version = _installed_version(name)
        detail = f"{version or 'not installed'} (needs {specifier or 'any'})"
        ok = version is not None and _in_range(version, specifier)
        checks.append(Finding(name, ok, True, detail, f"pip install '{name}{specifier}'"))
    return checks


def _conflicts() -> Finding:
    """The packages of NEIGHBOURS in this environment that need other versions than the installed
    ones.
    """
    present = [name for name in NEIGHBOURS if _installed_version(name)]
    conflicts = []
    for neighbour in present:
        for name, specifier in _requirements(neighbour):
            version = _installed_version(name)
            if name not in SHARED_PACKAGES or version is None:
                continue
            if not _in_range(version, specifier):
                conflicts.append(f"{neighbour} wants {name}{specifier}, installed is {version}")
    detail = "; ".join(conflicts) or ("none among " + ", ".join(present) if present else "none")
    return Finding(
        "conflicts", not conflicts, False, detail, "keep it in an environment of its own"
    )


def _processor() -> Finding:
    cores, load = machine.num_cores(), machine.load_average()
    detail = f"{machine.cpu_name()}, {cores} cores to use, load {load:.1f}"
    return Finding("processor", True, False, detail)


def _native() -> Finding:
    try:
        from ..ops.library import isa, threads

        name, number = isa(), threads()
    except Exception as error:  # a broken torch must not hide the other findings
        return Finding(
            "native library", False, True, without_paths(f"{type(error).__name__}: {error}")
        )
    if name == "reference":
        advice = "install a C++ compiler and reinstall; the same results, much slower, meanwhile"
        return Finding("native library", False, False, "not there; the reference is used", advice)
    return Finding("native library", True, False, f"runs with {name}, {number} threads")


def _accelerator() -> Finding:
    try:
        import torch

        name = (
            torch.cuda.get_device_name(0)
            if torch.cuda.is_available()
            else "none; everything runs on the processor"
        )
    except Exception as error:  # as above
        return Finding(
            "accelerator", False, False, without_paths(f"{type(error).__name__}: {error}")
        )
    triton = _installed_version("triton")
    return Finding("accelerator", True, False, f"{name}{f', triton {triton}' if triton else ''}")


def _memory() -> Finding:
    free, total = machine.available_memory_bytes(), machine.total_memory_bytes()
    detail = f"{free / 1e9:.1f} GB free of {total / 1e9:.1f} GB"
    return Finding(
        "memory", free >= ADVISED_MEMORY, False, detail, "`fw plan` says what a model needs"
    )


def _bandwidth() -> Finding:
    """The bandwidth of a large copy: the bandwidth of memory limits the speed of generating text on
    a processor.
    """
    try:
        from ..profiling.bandwidth import measure_copy_bandwidth

        rate = measure_copy_bandwidth()
    except Exception as error:  # as above
        return Finding(
            "memory bandwidth", False, False, without_paths(f"{type(error).__name__}: {error}")
        )
    return Finding("memory bandwidth", True, False, f"{rate / 1e9:.1f} GB/s, one thread")


def _disk() -> Finding:
    free = machine.free_disk_bytes(Path.cwd())
    return Finding(
        "disk", free >= ADVISED_DISK, False, f"{free / 1e9:.1f} GB free here", "free some space"
    )


def _offline() -> Finding:
    active_variables = [
        name
        for name in OFFLINE_VARIABLES
        if os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")
    ]
    return Finding(
        "network",
        True,
        False,
        f"switched off by {', '.join(active_variables)}"
        if active_variables
        else "allowed for hub names",
    )


def _pack_unpack() -> str:
    """Check that the packed codes of several formats decode to the values that rounding chose."""
    import torch

    from ..quantization.formats import Int, Trellis

    generator = torch.Generator().manual_seed(0)
    formats = (
        Int(bits=4, group=32),
        Int(bits=3, symmetric=False),
        Int(bits=8),
        Trellis(bits=2),
        Trellis(bits=3),
    )
    for format in formats:
        w = torch.randn(64, 64, generator=generator)
        params = format.fit(w).stored()
        height, width = format.tile
        grid = (64 // height, 64 // width)
        tiles = w.view(grid[0], height, grid[1], width).transpose(1, 2).reshape(-1, height, width)
        index = torch.arange(len(tiles))
        values, codes = format.snap(tiles, params, index // grid[1], index % grid[1])
        matrix = values.view(*grid, height, width).transpose(1, 2).reshape(64, 64)
        if not torch.equal(format.pack(codes, params, (64, 64)).dense(), matrix):
            raise ValueError(f"{format} comes back changed")
    return f"{len(formats)} formats exact"


def _native_equals_reference() -> str:
    """Check on every instruction set of this machine that the native encoder and decoder give the
    results of the reference.
    """
    import torch

    from ..ops import trellis
    from ..ops.library import available
    from ..quantization.formats import Trellis

    if not available():
        return "no native library, nothing to compare"
    x = torch.randn(4, 256, generator=torch.Generator().manual_seed(0))
    for bits in (2, 3):
        values = Trellis(bits=bits).values()
        streams = trellis.encode(x, values, 12, bits, isa="reference")
        samples = trellis.decode(streams, values, 12, bits, isa="reference")
        for isa in available():
            native_streams = trellis.encode(x, values, 12, bits, isa=isa)
            native_samples = trellis.decode(streams, values, 12, bits, isa=isa)
            if not (torch.equal(native_streams, streams) and torch.equal(native_samples, samples)):
                raise ValueError(
                    f"{isa} differs from the reference at {bits} bits; set FEATHERWEIGHT_NATIVE=0"
                )
    return f"{', '.join(available())} give the reference's bytes"


def _native_products() -> str:
    """Check on every instruction set of this machine that products of packed matrices with integers
    are exact.
    """
    import numpy as np
    import torch

    from ..inference.native.product import multiply
    from ..inference.native.weights import MatrixWeights
    from ..ops import lanes
    from ..ops.library import available

    if not available():
        return "no native library, nothing to compare"
    random = np.random.default_rng(0)
    x = random.integers(-127, 128, (3, 96)).astype(np.float32)
    x[:, 0] = 127  # the largest is 127, so that rounding to int8 changes nothing
    scales = np.full((3, 1, 16), 0.25, np.float16)
    for bits in (2, 3, 4, 8):
        codes = random.integers(0, 1 << bits, (48, 96), np.uint8)
        lane_bytes = lanes.int_to_lanes(torch.from_numpy(codes), bits).numpy()
        matrix = MatrixWeights(
            "int", (48, 96), lane_bytes, bits=bits, group=96, scales=scales, zero=1 << (bits - 1)
        )
        reference = x @ (codes.astype(np.float32) - matrix.zero).T * np.float32(0.25)
        for isa in available():
            if not np.array_equal(multiply(matrix, x, isa=isa), reference):
                raise ValueError(
                    f"{isa} multiplies wrongly at {bits} bits; set FEATHERWEIGHT_ISA=scalar"
                )
    return f"{', '.join(available())} multiply exactly"


def _kl_with_itself() -> str:
    """Check that the KL of a small random model with itself is exactly 0."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ..evaluation import KL, evaluate

    config = LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
    )
    model = LlamaForCausalLM(config).eval()
    windows = torch.arange(2 * 17).view(2, 17) % 64
    kl = evaluate(model, [KL(model, windows)]).quality["kl"]["mean"]
    if kl != 0.0:
        raise ValueError(f"a model's KL from itself is {kl}")
    return "exactly 0"
