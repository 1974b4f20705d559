"""Opens a model for generation: on the native engine if it can run the model, else on PyTorch; then
the reason is logged.

This module imports torch only when PyTorch runs the model, because importing it takes longer than
starting the native engine.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

from ..base.errors import Unsupported, UsageError
from ..base.events import Event, Listener, silent
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer
from ..interchange.source import Source

Runtime = Literal["auto", "native", "reference", "reference-int8"]
RUNTIMES = ("auto", "native", "reference", "reference-int8")


def open_engine(
    model: str | Path | Source, runtime: str = "auto", *, listener: Listener = silent
) -> tuple[Engine, ChatTokenizer]:
    """The engine and the tokenizer of a model.

    Args: model, an alias, folder, GGUF file or hub id, or its `Source`; runtime, "native",
    "reference" (PyTorch), "reference-int8" (PyTorch with activations rounded as in the native
    engine), or "auto" (the native engine if it can run the model, else PyTorch); listener, receives
    the events of loading. The caller must close the engine. Raises UsageError for another runtime,
    and when "native" cannot run the model; BadInput when there is no such model.
    """
    check_runtime(runtime)
    source = model if isinstance(model, Source) else Source.find(model, listener)
    listener(Event("loading", 0, 1, message=source.path.name))
    tokenizer = ChatTokenizer.open(source.path)
    engine = open_weights(source, runtime, listener=listener)
    listener(Event("loading", 1, 1, message=engine.description))
    return engine, tokenizer


def open_weights(
    source: Source,
    runtime: str = "auto",
    *,
    threads: int | None = None,
    listener: Listener = silent,
) -> Engine:
    """The engine of a model without its tokenizer, on `threads` threads (None: the default).

    Other arguments and errors as in `open_engine`.
    """
    check_runtime(runtime)
    name = source.path.name
    if runtime in ("auto", "native"):
        engine = _native(source, threads)
        if isinstance(engine, Engine):
            return engine
        reason = engine
        if runtime == "native":
            raise UsageError(
                f"{name} cannot run on the native engine: {reason}; try --runtime reference"
            )
        logging.getLogger(__name__).warning("%s runs on PyTorch: %s", name, reason)
    return _reference(source, runtime == "reference-int8", threads, listener)


def check_runtime(runtime: str) -> None:
    """Raise UsageError for the name of no runtime."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r}: choose {', '.join(RUNTIMES)}")


def _native(source: Source, threads: int | None) -> Engine | str:
    """The native engine, or the reason why it cannot run this model."""
    from ..inference.native.reader import open_runtime

    try:
        engine = open_runtime(source.path, threads=threads)
    except Unsupported as error:
        return str(error)
    if engine.limitation:
        logging.getLogger(__name__).warning("%s: %s", source.path.name, engine.limitation)
    return engine


def _reference(
    source: Source, int8_activations: bool, threads: int | None, listener: Listener
) -> Engine:
    import torch

    from ..inference.reference import ReferenceEngine
    from ..interchange import loading

    if threads is not None:
        torch.set_num_threads(threads)
    model, _ = loading.load(source.path, dtype=torch.float32, listener=listener)
    return ReferenceEngine(
        model, source.fingerprint, source.path.name, int8_activations=int8_activations
    )
