"""The shell's `serve`: open a model, and for comparison perhaps its original, and answer over HTTP
until a signal stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..inference.batching.batcher import Batcher
from ..interchange.source import Source
from .engines import open_engine
from .file_facts import file_facts

REQUIREMENTS = ("fastapi", "uvicorn", "pydantic", "prometheus_client")
CONTEXT = 2048  # tokens of a slot by default; less when the model's context is shorter


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
    cors_origins: Sequence[str] = (),
    runtime: str = "auto",
    on_ready: Callable[[str, list[dict[str, Any]]], None] = lambda url, models: None,
    listener: Listener = silent,
) -> None:
    """Serve a model until a signal stops it.

    Args: model and compare, what to serve (aliases, folders, GGUF files or hub ids), the second for
    comparison; host, port and api_key as in `serving.server.run`; slots, the answers that are
    generated at once, each with at most `context` tokens of prompt and answer, whose memory is
    reserved at the start; queue, the requests that may wait for a slot; max_tokens and seconds,
    limits of one answer; cors_origins, the sites whose pages may use the server; runtime as in
    `open_engine`; on_ready, called with the URL and the entries of /v1/models once connections are
    accepted. Raises UsageError for settings that cannot work, before a model is opened where that
    is possible, and BadInput when there is no such model.
    """
    if missing_packages := [name for name in REQUIREMENTS if find_spec(name) is None]:
        raise UsageError(
            f"serving needs {', '.join(missing_packages)}: pip install featherweight[serve]"
        )
    from ..serving import server
    from ..serving.app import check_origins
    from ..serving.hosted_models import HostedModel
    from ..serving.limits import Limits, check_binding

    check_binding(host, api_key)
    check_origins(cors_origins)
    limits = Limits(answer_seconds=seconds, max_tokens=max_tokens)
    models = [model] if compare is None else [model, compare]
    names = distinct_names(models)
    with ExitStack() as stack:
        hosted_models = []
        for name, model_name, role in zip(names, models, ("light", "original"), strict=False):
            # A single model has no role.
            facts: dict[str, Any] = {} if compare is None else {"role": role}
            source = Source.find(model_name, listener)
            engine, tokenizer = open_engine(source, runtime, listener=listener)
            stack.callback(engine.close)
            capacity = min(CONTEXT, engine.context) if context is None else context
            batcher = stack.enter_context(Batcher(engine, tokenizer, slots, capacity, queue))
            facts |= file_facts(source.path)
            hosted_models.append(HostedModel(name, batcher, facts))
        entries = [hosted_model.entry() for hosted_model in hosted_models]
        run = partial(server.run, hosted_models, host, port, api_key, limits, cors_origins)
        run(on_ready=lambda url: on_ready(url, entries))


def distinct_names(models: list[str]) -> list[str]:
    """The names by which clients ask for the models: the last part of a path, or the name that the
    user gave. Of two equal names the second gets "-original" behind it.
    """
    names = [
        Path(model).expanduser().resolve().name if Path(model).exists() else model
        for model in models
    ]
    names = [name.removesuffix(".gguf") for name in names]
    return names if len(set(names)) == len(names) else [names[0], f"{names[1]}-original"]
