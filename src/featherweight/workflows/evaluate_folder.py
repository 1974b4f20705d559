"""The shell's `evaluate`: perplexity of a model folder, and with `against` its KL from the original."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..evaluation import KL, Metric, Perplexity, evaluate
from ..interchange import sources
from ..quantization.layers import decoded


def evaluate_folder(
    model: str,
    *,
    against: str | None = None,
    text: str | None = None,
    windows: int = 16,
    length: int = 1024,
    listener: Listener = silent,
) -> dict[str, Any]:
    """{"quality": ...} as in results.json. `text`: a file, or the name of a shipped text (default wikitext2_test)."""
    name = text or "wikitext2_test"
    content = _content(name)
    light, tokenizer = sources.load(model, dtype=torch.float32)
    tokens = data.windows(tokenizer, content, length, windows)
    metrics: list[Metric] = [Perplexity(tokens, Path(name).name)]
    with ExitStack() as stack:
        stack.enter_context(decoded(light))
        if against is not None:
            original, other = sources.load(against, dtype=torch.float32)
            if other.get_vocab() != tokenizer.get_vocab():
                raise UsageError(f"{against} and {model} have different vocabularies; KL compares equal ones")
            stack.enter_context(decoded(original))
            metrics.append(KL(original, tokens, Path(name).name))
        return {"quality": evaluate(light, metrics, listener).quality}


def _content(name: str) -> str:
    path = Path(name)
    if path.suffix or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the text {name} cannot be read: {error}") from error
    return data.text(name)
