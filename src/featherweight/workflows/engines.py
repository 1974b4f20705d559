"""Open a model for generation: the native engine where it can, PyTorch where it cannot, and say
which and why.

The native engine imports no torch, so neither does this module until PyTorch is asked for.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from ..base.errors import Unsupported, UsageError
from ..base.events import Event, Listener, silent
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer
from ..interchange.locating import find_folder
from ..models.config import folder_fingerprint, quantization_method

Runtime = Literal["auto", "native", "reference", "reference-int8"]
RUNTIMES = ("auto", "native", "reference", "reference-int8")


def open_engine(
    model: str | Path, runtime: str = "auto", *, listener: Listener = silent
) -> tuple[Engine, ChatTokenizer]:
    """The engine and the tokenizer of anything that `fw.load` knows (alias, folder, GGUF file, hub
    id).

    `runtime`: "native"; "reference" (PyTorch; "reference-int8" rounds activations as the native
    engine does); "auto" is native when it can run this model, else PyTorch with a logged reason.
    Raises UsageError when "native" cannot.
    """
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: choose {', '.join(RUNTIMES)}")
    folder = find_folder(model, listener)
    quantization_method(folder)
    listener(Event("loading", 0, 1, message=folder.name))
    text = ChatTokenizer.open(folder)
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
            raise UsageError(
                f"{folder.name} cannot run on the native engine: {found}; try --runtime reference"
            )
        logging.getLogger(__name__).warning("%s runs on PyTorch: %s", folder.name, found)
    return _reference(folder, runtime == "reference-int8", threads, listener)


def _native(folder: Path, threads: int | None) -> Engine | str:
    """The native engine, or why it cannot run this model."""
    from ..inference.native.reader import open_runtime

    try:
        return open_runtime(folder, threads=threads)
    except Unsupported as error:
        return str(error)


def _reference(
    folder: Path, int8_activations: bool, threads: int | None, listener: Listener
) -> Engine:
    import torch

    from ..inference.reference import ReferenceEngine
    from ..interchange import loading

    if threads is not None:
        torch.set_num_threads(threads)
    model, _ = loading.load(folder, dtype=torch.float32, listener=listener)
    return ReferenceEngine(
        model, folder_fingerprint(folder), folder.name, int8_activations=int8_activations
    )
