"""The shell's `evaluate --free-running`: the free-running check of a model and its original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..interchange.source import Source
from ..models.answers import holds_answers
from ..quantization.evidence.results import load_results
from . import evidence
from .free_running import free_running


def evaluate_free_running(
    model: str | Path,
    against: str | Path | None = None,
    *,
    prompts: int = 100,
    answer_tokens: int = 256,
    record: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Let a model and its original answer the same prompts, and return {"free_running": ...} as in
    results.json.

    Args: model and against, the original, each an alias, folder, GGUF file or hub id; prompts, how
    many of `data.prompts`; answer_tokens, of the longest answer; record, write the entry into
    results.json of the packed folder `model` and make its page and model card again; listener,
    receives an event for each answer. Raises UsageError for impossible settings and for models that
    cannot be asked the same, BadInput for a model that cannot be used.
    """
    if against is None:
        raise UsageError("--free-running needs --against, the original: small models loop too")
    if holds_answers(against):
        raise UsageError(
            f"{against} holds answers about a text; --free-running needs the original itself"
        )
    source = Source.find(model, listener)
    if record:
        load_results(source.path)
    original = Source.find(against, listener)
    entry = free_running(original, source, prompts, answer_tokens, listener)
    results = {"free_running": entry}
    if record:
        evidence.record(source.path, results)
    return results
