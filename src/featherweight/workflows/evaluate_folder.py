"""The shell's `evaluate`: the perplexity of a model and, with `against`, its KL from the
original.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..base.files import write_atomic
from ..evaluation import KL, Metric, Perplexity, evaluate
from ..inference.engine import Engine, Session
from ..interchange import loading
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Answers
from ..quantization.layers import keep_decoded
from .engines import open_engine
from .evidence import RESULTS, publish_pages, read_text
from .preflight import check_length
from .teach_folder import is_answers, open_answers


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
    recorded_results = _recorded_results(model, against) if record else None
    tokenizer = load_checked_tokenizer(loading.locate(model))
    answers = open_answers(against, tokenizer) if against and is_answers(against) else None
    if answers is None:
        name = text or "wikitext2_test"
        tokens = data.windows(tokenizer, read_text(name), length, windows, bos)
        content: _Content = (tokens, Path(name).name, bool(data.first_tokens(tokenizer, bos)))
    else:
        content, length = _content(answers), answers.header.length
    originals = [Source.find(against)] if against and answers is None else []
    for source in (Source.find(model, listener), *originals):
        check_length(source, length, "--length N")
    with ExitStack() as stack:
        light = _open_light(model, runtime, length, stack, listener)
        metrics: list[Metric] = [Perplexity(*content)]
        if answers is not None:
            metrics.append(KL(answers, *content))
        elif against is not None:
            original_source = Source.find(against)
            original, original_tokenizer = loading.load(original_source.path, dtype=torch.float32)
            if original_tokenizer.get_vocab() != tokenizer.get_vocab():
                raise UsageError(
                    f"{against} and {model} have different vocabularies; KL compares equal ones"
                )
            stack.enter_context(keep_decoded(original))
            metrics.append(KL(original, *content))
        quality = evaluate(light, metrics, listener).quality
    results = {"quality": quality if runtime is None else {**quality, "runtime": runtime}}
    if recorded_results is not None:
        folder = Source.find(model).path
        recorded_results.update(results)
        write_atomic(folder / RESULTS, json.dumps(recorded_results, indent=1) + "\n")
        publish_pages(recorded_results, folder)
    return results


# Windows of tokens, the name of their text, and whether each starts with a BOS.
_Content = tuple[torch.Tensor, str, bool | None]


def _content(answers: Answers) -> _Content:
    return answers.tokens, answers.header.text_name, answers.header.bos


def _recorded_results(model: str | Path, against: str | None) -> dict[str, Any]:
    """The content of results.json of a packed folder, which is to get its quality.

    Raises UsageError without an original, BadInput when there is no such file.
    """
    if against is None:
        raise UsageError("--record needs --against, the original: the page shows the KL from it")
    path = Source.find(model).path / RESULTS
    try:
        results: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}); --record needs a quantized folder") from (
            error
        )
    return results


def _open_light(
    model: str | Path, runtime: str | None, length: int, stack: ExitStack, listener: Listener
) -> Any:
    """The model under test, as a function from the tokens of a window to logits. `stack` closes
    it.
    """
    if runtime is None:
        light, _ = loading.load(Source.find(model).path, dtype=torch.float32)
        stack.enter_context(keep_decoded(light))
        return light
    source = Source.find(model, listener)
    engine, _ = open_engine(source, runtime, listener=listener)
    stack.callback(engine.close)
    session = engine.session(length)
    stack.callback(session.close)
    return TeacherForced(engine, session)


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
