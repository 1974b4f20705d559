"""Open a model for generation: the native engine where it can, PyTorch where it cannot, and say which and why.

The native engine imports no torch, so neither does this module until PyTorch is asked for.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import Literal

from ..base.errors import UsageError
from ..base.events import Event, Listener, silent
from ..inference.engine import Engine
from ..inference.text import Text
from ..interchange.locating import CONFIG, find_folder, method

Runtime = Literal["auto", "native", "reference", "reference-int8"]
RUNTIMES = ("auto", "native", "reference", "reference-int8")


def open_engine(model: str | Path, runtime: str = "auto", *, listener: Listener = silent) -> tuple[Engine, Text]:
    """The engine and the tokenizer of anything that `fw.load` knows (alias, folder, GGUF file, hub id).

    `runtime`: "native"; "reference" (PyTorch; "reference-int8" rounds activations as the native engine does); "auto" is
    native when it can run this model, else PyTorch with a logged reason. Raises UsageError when "native" cannot.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: choose {', '.join(RUNTIMES)}")
    folder = find_folder(model, listener)
    method(folder)
    listener(Event("loading", 0, 1, message=folder.name))
    text = Text.open(folder)
    engine = open_weights(folder, runtime, listener=listener)
    listener(Event("loading", 1, 1, message=engine.description))
    return engine, text


def open_weights(
    folder: Path, runtime: str = "auto", *, threads: int | None = None, listener: Listener = silent
) -> Engine:
    """The engine of a local folder without its tokenizer; otherwise as `open_engine`."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: choose {', '.join(RUNTIMES)}")
    if runtime in ("auto", "native"):
        found = _native(folder, threads)
        if isinstance(found, Engine):
            return found
        if runtime == "native":
            raise UsageError(f"{folder.name} cannot run on the native engine: {found}; try --runtime reference")
        logging.getLogger(__name__).warning("%s runs on PyTorch: %s", folder.name, found)
    return _reference(folder, runtime == "reference-int8", threads, listener)


def _native(folder: Path, threads: int | None) -> Engine | str:
    """The native engine, or why it cannot run this model."""
    from ..inference.described import Unsupported
    from ..interchange.native_model import open_runtime

    try:
        return open_runtime(folder, threads=threads)
    except Unsupported as error:
        return str(error)


def _reference(folder: Path, int8: bool, threads: int | None, listener: Listener) -> Engine:
    import torch

    from ..inference.reference import Reference
    from ..interchange import sources

    if threads is not None:
        torch.set_num_threads(threads)
    model, _ = sources.load(folder, dtype=torch.float32, listener=listener)
    return Reference(model, fingerprint(folder), folder.name, int8=int8)


def fingerprint(folder: Path) -> str:
    """Hexadecimal name of the weights and settings in `folder`, from what changes when they are written again.

    A packed folder's config.json holds the SHA-256 of its weights; for others, sizes and times stand for the content.
    """
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for path in sorted(folder.glob("*.safetensors")):
        facts = path.stat()
        digest.update(f"{path.name} {facts.st_size} {facts.st_mtime_ns}".encode())
    return digest.hexdigest()[:32]
