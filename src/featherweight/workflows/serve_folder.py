"""The shell's `serve`: opens a model, and optionally its original for comparison, and answers
requests over HTTP until a signal stops it.
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
from .published import published_size

REQUIREMENTS = ("fastapi", "uvicorn", "pydantic", "prometheus_client")
CONTEXT = 2048  # default number of tokens of a slot, unless the model's context is shorter


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

    Args: model, an alias, folder, GGUF file or hub id; compare, a second model that is served for
    comparison; host, port and api_key as in `serving.server.run`; slots, the number of answers that
    are generated at once; context, the tokens of prompt and answer of each slot, whose memory is
    reserved at the start (None: up to 2048); queue, the number of requests that may wait for a
    slot; max_tokens and seconds, limits of one answer; cors_origins, the sites whose pages may use
    the server; runtime as in `open_engine`; on_ready, is called with the URL and the entries of
    /v1/models when connections are accepted; listener, receives the events of loading. Raises
    UsageError for impossible settings, BadInput when there is no such model.
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
            facts |= file_facts(source.path)
            if facts.get("role") == "original" and not source.is_packed:
                dtype, num_bytes = published_size(source)
                facts |= {"published_dtype": dtype, "published_bytes": num_bytes}
            engine, tokenizer = open_engine(source, runtime, listener=listener)
            stack.callback(engine.close)
            capacity = min(CONTEXT, engine.context) if context is None else context
            batcher = stack.enter_context(Batcher(engine, tokenizer, slots, capacity, queue))
            hosted_models.append(HostedModel(name, batcher, facts))
        entries = [hosted_model.entry() for hosted_model in hosted_models]
        run = partial(server.run, hosted_models, host, port, api_key, limits, cors_origins)
        run(on_ready=lambda url: on_ready(url, entries))


def distinct_names(models: list[str]) -> list[str]:
    """The names of the models for clients: the last part of a path, or the name that the user gave.
    When two names are equal, "-original" is appended to the second.
    """
    names = [
        Path(model).expanduser().resolve().name if Path(model).exists() else model
        for model in models
    ]
    names = [name.removesuffix(".gguf") for name in names]
    return names if len(set(names)) == len(names) else [names[0], f"{names[1]}-original"]
