"""The quality of compared models on the same windows: KL from the original, agreement, perplexity.

The original answers the text once. The others are compared with its logits on disk, so that one
model at a time is in memory.
"""

from __future__ import annotations

import gc
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from ..base.events import Listener
from ..base.run_folder import RunFolder
from ..evaluation import KL, Perplexity, evaluate
from ..evaluation.base import CausalModel
from ..interchange import loading
from ..interchange.source import Source
from ..models.answers import Answers, holds_answers, write_answers
from ..quantization.layers import keep_decoded
from .comparison import Comparison, for_model

Outcome = TypeVar("Outcome")

# Shares of tokens at whose KL the distributions are drawn: so many have more.
BODY_SHARES = (0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
TAIL_SHARES = (*BODY_SHARES, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)


def measure_qualities(
    run: RunFolder, comparison: Comparison, listener: Listener
) -> dict[str, dict[str, Any]]:
    """By model: its quality, the figures of each window, and the tail of its KL. Deletes the
    original's answers when all is done.
    """
    records = {
        name: run.done(f"quality {name}", source.fingerprint)
        for name, source in comparison.sources.items()
    }
    folder = run.work / "answers"
    if None in records.values():
        answers = _answers(run, comparison, folder, listener)
        for name, record in records.items():
            if record is None:
                send = for_model(name, listener)
                records[name] = _quality(comparison, name, answers, send)
                fingerprint = comparison.sources[name].fingerprint
                run.finish_unit(f"quality {name}", fingerprint, None, records[name] or {})
    shutil.rmtree(folder, ignore_errors=True)
    return {name: record for name, record in records.items() if record is not None}


def _answers(run: RunFolder, comparison: Comparison, folder: Path, listener: Listener) -> Answers:
    """The original's logits on disk, written where they are missing. The original is in memory only
    meanwhile.
    """
    name = comparison.original
    source = comparison.sources[name]
    if run.done("answers", source.fingerprint) is not None and holds_answers(folder):
        return Answers.open(folder, tokens=comparison.tokens)
    send = for_model(name, listener)
    answers = _with_model(
        source,
        send,
        lambda model: write_answers(
            model,
            comparison.tokens,
            folder,
            comparison.answers,
            tokenizer=comparison.tokenizer,
            model_id=source.fingerprint,
            name=name,
            text_name=comparison.text_name,
            bos=comparison.has_bos,
            listener=send,
        ),
    )
    run.finish_unit("answers", source.fingerprint, None, {})
    return answers


def _quality(
    comparison: Comparison, name: str, answers: Answers, listener: Listener
) -> dict[str, Any]:
    """The figures of one model. The original's are those of its answers, whose KL from themselves
    is 0.
    """
    start = time.monotonic()
    content = (comparison.tokens, comparison.text_name, comparison.has_bos)

    def measure(model: CausalModel) -> dict[str, Any]:
        evaluation = evaluate(model, [Perplexity(*content), KL(answers, *content)], listener)
        scores = evaluation.scores
        assert scores.kl is not None and scores.agree is not None
        tail = np.quantile(scores.kl, [1 - share for share in TAIL_SHARES])
        return {
            "quality": evaluation.quality,
            "kl_tail": {"shares": list(TAIL_SHARES), "kl": tail.tolist()},
            "windows": {
                "kl": scores.kl.mean(1).tolist(),
                "top1": scores.agree.mean(1).tolist(),
                "loss": scores.loss.mean(1).tolist(),
            },
        }

    if name == comparison.original:
        record = measure(answers)
    else:
        record = _with_model(comparison.sources[name], listener, measure)
    return record | {"seconds": round(time.monotonic() - start, 2)}


def _with_model(source: Source, listener: Listener, work: Callable[[Any], Outcome]) -> Outcome:
    """What `work` returns of the loaded model, which is then released."""
    model, _ = loading.load(source.path, dtype=torch.float32, listener=listener)
    try:
        with keep_decoded(model):
            return work(model)
    finally:
        del model
        # Modules refer to one another, so their memory comes back only with a collection.
        gc.collect()
