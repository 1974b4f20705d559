"""The shell's `evaluate`: the perplexity of a model and, with `against`, its KL from the
original.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..evaluation import KL, Metric, Perplexity, evaluate
from ..inference.engine import Engine, Session
from ..interchange import loading
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Answers, Full, holds_answers
from ..quantization.evidence.results import load_results
from ..quantization.layers import keep_decoded
from . import evidence
from .engines import open_engine
from .evidence import read_text
from .preflight import check_length


def evaluate_folder(
    model: str | Path,
    *,
    against: str | None = None,
    text: str | None = None,
    windows: int = 16,
    length: int = 1024,
    bos: str = "auto",
    runtime: str | None = None,
    record: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Measure a model, and return {"quality": ...} as in results.json.

    Args: model, an alias, folder, GGUF file or hub id; against, the original to compare it with, or
    a folder of its answers, whose text, windows, length and BOS are then those of the evaluation;
    text, a file or the name of a shipped text (None: wikitext2_test); windows, the number of
    windows, of `length` tokens each; bos, whether each window starts with the BOS, as in
    `data.first_tokens`; runtime, the engine that computes the logits of `model`, as in
    `open_engine` (None: the forward pass of PyTorch, which always computes those of `against`);
    record, write the quality into results.json of the packed folder `model` and make its page and
    model card again; listener, receives an event for each window. Raises UsageError when
    vocabularies differ or settings are impossible, BadInput for a model or text that cannot be
    used.
    """
    if record and against is None:
        raise UsageError("--record needs --against, the original: the page shows the KL from it")
    source = Source.find(model, listener)
    if record:
        load_results(source.path)
    tokenizer = load_checked_tokenizer(source.path)
    answers, original_source = None, None
    if against is not None and holds_answers(against):
        answers = _open_answers(against, tokenizer, record)
        header = answers.header
        length = header.length
        content: _Content = (answers.tokens, header.text_name, header.bos)
    else:
        name = text or "wikitext2_test"
        tokens = data.windows(tokenizer, read_text(name), length, windows, bos)
        content = (tokens, Path(name).name, bool(data.first_tokens(tokenizer, bos)))
        original_source = None if against is None else Source.find(against)
    for checked_source in filter(None, (source, original_source)):
        check_length(checked_source, length, "--length N")
    with ExitStack() as stack:
        light = _open_light(source, runtime, length, stack, listener)
        metrics: list[Metric] = [Perplexity(*content)]
        if answers is not None:
            metrics.append(KL(answers, *content))
        elif original_source is not None:
            original = _open_original(original_source, source, tokenizer, stack)
            metrics.append(KL(original, *content))
        quality = evaluate(light, metrics, listener).quality
    results = {"quality": quality if runtime is None else {**quality, "runtime": runtime}}
    if record:
        evidence.record(source.path, results)
    return results


# Windows of tokens, the name of their text, and whether each starts with a BOS.
_Content = tuple[torch.Tensor, str, bool | None]


def _open_answers(folder: str, tokenizer: Any, record: bool) -> Answers:
    """Answers to compare with. Raises UsageError when `record` wants those of a part of the
    vocabulary on a page.
    """
    answers = Answers.open(folder, tokenizer=tokenizer, temperature=1.0)
    if record and not isinstance(answers.header.kind, Full):
        raise UsageError(
            "--record: the page shows the whole KL, which needs the original or its full answers"
        )
    return answers


def _open_light(
    source: Source, runtime: str | None, length: int, stack: ExitStack, listener: Listener
) -> Any:
    """The model under test, as a function from the tokens of a window to logits. `stack` closes
    it.
    """
    if runtime is None:
        light, _ = loading.load(source.path, dtype=torch.float32)
        stack.enter_context(keep_decoded(light))
        return light
    engine, _ = open_engine(source, runtime, listener=listener)
    stack.callback(engine.close)
    session = engine.session(length)
    stack.callback(session.close)
    return TeacherForced(engine, session)


def _open_original(original: Source, light: Source, tokenizer: Any, stack: ExitStack) -> Any:
    """The original in memory. Raises UsageError when its vocabulary is not that of `tokenizer`,
    the light model's.
    """
    model, original_tokenizer = loading.load(original.path, dtype=torch.float32)
    if original_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UsageError(
            f"{original.display_name} and {light.display_name} have different vocabularies; KL "
            "compares equal ones"
        )
    stack.enter_context(keep_decoded(model))
    return model


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
