"""Turns an alias, a local folder, a GGUF file or a hub id into a local folder in transformers'
layout.

Aliases and GGUF files are converted once and kept in the cache. Nothing here imports torch (a first
conversion does), so that the native engine can start without it. `source.py` and `loading.py` read
the folder.
"""

from __future__ import annotations

import hashlib
import re
from difflib import get_close_matches
from pathlib import Path

from ..base.errors import BadInput
from ..base.events import Event, Listener, silent
from ..base.files import sha256
from . import bundled
from .cache import build_once, cache_folder
from .gguf.split import part_paths

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# Files of a hub's repository that a model folder needs. Pickles, other frameworks' files and copies
# in subfolders are not fetched.
NEEDED_FILES = (
    "*.json",
    "*.safetensors",
    "*.jinja",
    "*.txt",
    "*.model",
    "*.tiktoken",
    "LICENSE*",
    "NOTICE*",
    "README.md",
)
IGNORED_FILES = ("*/*", "consolidated*")


def find_folder(model: str | Path, listener: Listener = silent) -> Path:
    """The local folder of an alias, a folder, a `.gguf` file or a hub id; its content is not read.

    A path that exists wins over an alias or hub id of the same name. Raises BadInput, saying what
    to try.
    """
    text, path = str(model), Path(model).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        return _from_file(path, listener)
    if bundled_model := bundled.find(text):
        return bundled.build_folder(bundled_model, listener)
    if not _looks_like_a_path(model) and HUB_ID.fullmatch(text):
        return _from_hub(text, listener)
    aliases = [
        name
        for bundled_model in bundled.MODELS
        for name in (bundled_model.name, *bundled_model.aliases)
    ]
    nearest = get_close_matches(text, aliases, n=1)
    raise BadInput(
        f"{text!r} was not found: there is no such folder or file"
        + (f"; did you mean {nearest[0]}?" if nearest else "")
        + f". A model is an alias ({', '.join(aliases)}), a local folder, a .gguf file or a hub id "
        "(owner/name)"
    )


def repository(model: str) -> str | None:
    """The name on the hub of what a user called `model`; None for a folder or a file."""
    if Path(model).expanduser().exists():
        return None
    if bundled_model := bundled.find(model):
        return bundled_model.repository
    return model if HUB_ID.fullmatch(model) else None


def _from_file(path: Path, listener: Listener) -> Path:
    from .gguf.convert import convert

    with open(path, "rb") as file:
        magic = file.read(4)
    if path.suffix != ".gguf" and magic != b"GGUF":
        raise BadInput(
            f"{path} is neither a model folder nor a GGUF file; to use a checkpoint, give the "
            "folder it lies in"
        )
    listener(Event("checksum", 0, 1, message=path.name))
    digests = [sha256(part) for part in part_paths(path)]
    digest = (
        digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    )
    folder = cache_folder() / "models" / f"{path.stem}-{digest[:16]}"
    listener(Event("checksum", 1, 1, message=path.name))
    return build_once(folder, lambda temporary: convert(path, temporary, listener))


def _from_hub(name: str, listener: Listener) -> Path:
    """The snapshot of the repository `name` in the cache of huggingface_hub; with HF_HUB_OFFLINE=1
    nothing is downloaded.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    listener(Event("download", 0, 1, message=name))
    try:
        folder = snapshot_download(
            name, allow_patterns=list(NEEDED_FILES), ignore_patterns=list(IGNORED_FILES)
        )
    except (HfHubHTTPError, HFValidationError, OSError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{name!r} is no local folder, and could not be fetched from the hub: {reason} "
            "(offline, only models that the hub's cache already holds can be used; give a local "
            "folder instead)"
        ) from error
    listener(Event("download", 1, 1, message=name))
    return Path(folder)


def _looks_like_a_path(model: str | Path) -> bool:
    text = str(model)
    return (
        isinstance(model, Path)
        or text.startswith((".", "~", "/"))
        or text.endswith((".gguf", ".safetensors", "/"))
    )
