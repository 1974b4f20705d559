"""The shell's `evaluate`: perplexity of a model folder, and with `against` its KL from the
original.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..evaluation import KL, Metric, Perplexity, evaluate
from ..inference.engine import Engine, Session
from ..interchange import loading, locating
from ..quantization.layers import decoded
from .engines import open_engine


def evaluate_folder(
    model: str,
    *,
    against: str | None = None,
    text: str | None = None,
    windows: int = 16,
    length: int = 1024,
    runtime: str | None = None,
    listener: Listener = silent,
) -> dict[str, Any]:
    """{"quality": ...} as in results.json. `text`: a file, or the name of a shipped text (default
    wikitext2_test).

    `runtime`: what computes the logits of `model`, as in `open_engine`; None is PyTorch's plain
    forward, which is also what computes those of `against`.
    """
    name = text or "wikitext2_test"
    content = _content(name)
    with ExitStack() as stack:
        light, tokenizer = _light(model, runtime, length, stack, listener)
        tokens = data.windows(tokenizer, content, length, windows)
        metrics: list[Metric] = [Perplexity(tokens, Path(name).name)]
        if against is not None:
            original, other = loading.load(against, dtype=torch.float32)
            if other.get_vocab() != tokenizer.get_vocab():
                raise UsageError(
                    f"{against} and {model} have different vocabularies; KL compares equal ones"
                )
            stack.enter_context(decoded(original))
            metrics.append(KL(original, tokens, Path(name).name))
        quality = evaluate(light, metrics, listener).quality
        return {"quality": quality if runtime is None else {**quality, "runtime": runtime}}


def _light(
    model: str, runtime: str | None, length: int, stack: ExitStack, listener: Listener
) -> tuple[Any, Any]:
    """The model under test, as a function of a window's tokens, and its tokenizer; `stack` closes
    it.
    """
    if runtime is None:
        light, tokenizer = loading.load(model, dtype=torch.float32)
        stack.enter_context(decoded(light))
        return light, tokenizer
    folder = locating.find_folder(model, listener)
    engine, _ = open_engine(folder, runtime, listener=listener)
    stack.callback(engine.close)
    session = engine.session(length)
    stack.callback(session.close)
    return TeacherForced(engine, session), loading.load_tokenizer(folder)


@dataclass
class _Output:
    logits: torch.Tensor


class TeacherForced:
    """An engine as what `evaluate` calls: the logits after each token of a window."""

    def __init__(self, engine: Engine, session: Session) -> None:
        self.engine, self.session = engine, session

    def __call__(self, tokens: torch.Tensor, use_cache: bool = False) -> _Output:
        self.session.rewind(0)
        logits = self.engine.forward(self.session, tokens[0].cpu().numpy(), logits="all")
        return _Output(torch.from_numpy(logits)[None])


def _content(name: str) -> str:
    path = Path(name)
    if path.suffix or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the text {name} cannot be read: {error}") from error
    return data.text(name)
