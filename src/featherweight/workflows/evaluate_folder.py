"""The shell's `evaluate`: perplexity of a model, and with `against` its KL from the original."""

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
from ..interchange import loading
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..quantization.layers import keep_decoded
from .engines import open_engine


def evaluate_folder(
    model: str | Path,
    *,
    against: str | None = None,
    text: str | None = None,
    windows: int = 16,
    length: int = 1024,
    runtime: str | None = None,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Measure a model, and return {"quality": ...} as in results.json.

    Args: model, an alias, folder, GGUF file or hub id; against, the original to compare it with;
    text, a file or the name of a shipped text (None: wikitext2_test); windows, how many, of
    `length` tokens each; runtime, the engine that computes the logits of `model` as in
    `open_engine` (None: PyTorch's plain forward, which always computes those of `against`). Raises
    UsageError or BadInput for what cannot be measured.
    """
    name = text or "wikitext2_test"
    content = _read_text(name)
    with ExitStack() as stack:
        light, tokenizer = _open_light(model, runtime, length, stack, listener)
        tokens = data.windows(tokenizer, content, length, windows)
        metrics: list[Metric] = [Perplexity(tokens, Path(name).name)]
        if against is not None:
            original_source = Source.find(against)
            original, original_tokenizer = loading.load(original_source.path, dtype=torch.float32)
            if original_tokenizer.get_vocab() != tokenizer.get_vocab():
                raise UsageError(
                    f"{against} and {model} have different vocabularies; KL compares equal ones"
                )
            stack.enter_context(keep_decoded(original))
            metrics.append(KL(original, tokens, Path(name).name))
        quality = evaluate(light, metrics, listener).quality
        return {"quality": quality if runtime is None else {**quality, "runtime": runtime}}


def _open_light(
    model: str | Path, runtime: str | None, length: int, stack: ExitStack, listener: Listener
) -> tuple[Any, Any]:
    """The model under test, as a function of a window's tokens, and its tokenizer; `stack` closes
    the model.
    """
    if runtime is None:
        source = Source.find(model)
        light, tokenizer = loading.load(source.path, dtype=torch.float32)
        stack.enter_context(keep_decoded(light))
        return light, tokenizer
    source = Source.find(model, listener)
    engine, _ = open_engine(source, runtime, listener=listener)
    stack.callback(engine.close)
    session = engine.session(length)
    stack.callback(session.close)
    return TeacherForced(engine, session), load_checked_tokenizer(source.path)


@dataclass
class _Output:
    logits: torch.Tensor


class TeacherForced:
    """An engine in the form that `evaluate` calls: a function from the tokens of a window to the
    logits after each of them.
    """

    def __init__(self, engine: Engine, session: Session) -> None:
        self.engine, self.session = engine, session

    def __call__(self, tokens: torch.Tensor, use_cache: bool = False) -> _Output:
        self.session.rewind(0)
        logits = self.engine.forward(self.session, tokens[0].cpu().numpy(), logits="all")
        return _Output(torch.from_numpy(logits)[None])


def _read_text(name: str) -> str:
    path = Path(name)
    if path.suffix or path.exists():
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"the text {name} cannot be read: {error}") from error
    return data.text(name)
