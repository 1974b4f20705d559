"""The shell's `serve`: open a model, and for comparison perhaps its original, and answer over HTTP
until stopped.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..inference.batching.batcher import Batcher
from ..interchange.locating import find_folder
from .engines import open_engine
from .file_facts import file_facts

NEEDED = ("fastapi", "uvicorn", "pydantic", "prometheus_client")
CONTEXT = 2048  # tokens of a slot, unless asked for otherwise or the model holds fewer


def serve_folder(
    model: str,
    *,
    compare: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: str | None = None,
    slots: int = 8,
    context: int | None = None,
    queue: int = 64,
    max_tokens: int | None = None,
    seconds: float = 600.0,
    runtime: str = "auto",
    ready: Callable[[str, list[dict[str, Any]]], None] = lambda url, models: None,
    listener: Listener = silent,
) -> None:
    """Serve `model`, and `compare` as a second model, until a signal comes.

    `ready` gets the URL and what /v1/models says. `slots` answers of at most `context` tokens
    (prompt included) are made at once, `queue` more may wait; their memory is taken at the start.
    Raises UsageError for settings that cannot work, before a model is opened where that can be
    seen.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise UsageError(f"serving needs {', '.join(missing)}: pip install featherweight[serve]")
    from ..serving import running
    from ..serving.hosted import HostedModel
    from ..serving.limits import Limits, check_binding

    check_binding(host, api_key)
    limits = Limits(answer_seconds=seconds, max_tokens=max_tokens)
    asked = [model] if compare is None else [model, compare]
    names = distinct_names(asked)
    with ExitStack() as stack:
        hosted = []
        for name, source, role in zip(names, asked, ("light", "original"), strict=False):
            # Alone it is neither light nor the original, just the model.
            facts: dict[str, Any] = {} if compare is None else {"role": role}
            facts |= file_facts(find_folder(source, listener))
            engine, text = open_engine(source, runtime, listener=listener)
            stack.callback(engine.close)
            capacity = min(CONTEXT, engine.context) if context is None else context
            batcher = stack.enter_context(Batcher(engine, text, slots, capacity, queue))
            hosted.append(HostedModel(name, batcher, facts))
        described = [one.described() for one in hosted]
        running.run(hosted, host, port, api_key, limits, lambda url: ready(url, described))


def distinct_names(models: list[str]) -> list[str]:
    """What clients call the models: the last part of what the user wrote, told apart when two are
    alike.
    """
    names = [
        Path(model).expanduser().resolve().name if Path(model).exists() else model
        for model in models
    ]
    names = [name.removesuffix(".gguf") for name in names]
    return names if len(set(names)) == len(names) else [names[0], f"{names[1]}-original"]
