"""`evaluate`: run metrics over a model, each window read once by each model that the metrics name.

Metrics are grouped by their windows; within a group the model under test reads a window once, each
distinct original once, and all metrics share the scores. An original that *is* the model under test
is the same reading: its logits go through both sides of the arithmetic, and the KL comes out as
exactly 0.

Memory beside the models: the logits of one window for two models (2 x length x vocabulary x bytes
of the dtype; 400 MB at 1,024 x 49,152 in float32) plus a few megabytes. Time: the forwards; scoring
adds about a tenth on a small model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..base.errors import UsageError
from ..base.events import Listener, silent, track
from .base import CausalModel, Metric, Scores, check_finite, logits, reading, score


@dataclass(frozen=True, eq=False)
class TextResult:
    """What was measured on one set of windows.

    `quality` is plain data for results.json, `scores` keeps every token.
    """

    quality: dict[str, Any]
    scores: Scores


@dataclass(frozen=True, eq=False)
class Results:
    """One `TextResult` for each window set, in the order of the metrics, and how long all of it
    took.
    """

    texts: tuple[TextResult, ...]
    seconds: float

    @property
    def quality(self) -> dict[str, Any]:
        """The `quality` entry of results.json: the first text's, further texts under `others`."""
        first, *further_texts = (text.quality for text in self.texts)
        return first | {"others": further_texts} if further_texts else first

    @property
    def scores(self) -> Scores:
        """Per-token scores of the first text, for paired comparisons with another run over the same
        windows.
        """
        return self.texts[0].scores


def evaluate(model: CausalModel, metrics: Sequence[Metric], listener: Listener = silent) -> Results:
    """Score `model` with every metric; raises UsageError for none, BadInput when a model gives
    non-finite numbers.

    Models are put in evaluation mode and back. Deterministic given models and windows; intervals
    use a fixed seed.
    """
    if not metrics:
        raise UsageError("evaluate needs at least one metric, for example Perplexity(windows)")
    start = time.monotonic()
    groups = _group(metrics)
    total = sum(len(group[0].windows) for group in groups)
    steps = track(
        (w for group in groups for w in range(len(group[0].windows))), "evaluate", total, listener
    )
    with reading(model, *(m.original for m in metrics)):
        texts = tuple(_measure(model, group, steps) for group in groups)
        # The bar's generator reports a window when asked for the next one: ask once more, so that
        # it reaches the end.
        next(steps, None)
    return Results(texts, time.monotonic() - start)


def _group(metrics: Sequence[Metric]) -> list[list[Metric]]:
    groups: list[list[Metric]] = []
    for metric in metrics:
        matches = (g for g in groups if _equal_windows(g[0].windows, metric.windows))
        group = next(matches, None)
        if group is None:
            groups.append([metric])
        else:
            group.append(metric)
    return groups


def _equal_windows(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a, b))


def _measure(model: CausalModel, group: list[Metric], steps: Any) -> TextResult:
    windows, text = group[0].windows, group[0].text
    distinct = {id(m.original): m.original for m in group if m.original is not None}
    originals: list[CausalModel | None] = [*distinct.values()] or [None]
    rows: list[list[Scores]] = [[] for _ in originals]
    for window, index in zip(windows, steps, strict=False):
        light = logits(model, window)
        for original, scores_of_windows in zip(originals, rows, strict=True):
            original_logits = (
                None
                if original is None
                else light
                if original is model
                else logits(original, window)
            )
            window_scores = score(light, window[1:], original_logits)
            check_finite(window_scores, "the model", text, index)
            scores_of_windows.append(window_scores)
            del original_logits
        del light
    all_scores = [Scores.stack(scores_of_windows) for scores_of_windows in rows]
    by_original = {id(o): scores for o, scores in zip(originals, all_scores, strict=True)}
    quality = _text(group[0])
    for metric in group:
        quality |= metric.entries(by_original.get(id(metric.original), all_scores[0]))
    return TextResult(quality, all_scores[0])


def _text(metric: Metric) -> dict[str, Any]:
    count, positions = metric.windows.shape
    text = {
        "name": metric.text,
        "windows": count,
        "length": positions - 1,
        "tokens": count * (positions - 1),
        "bos": False,
        "first_ids": metric.windows[0, :16].tolist(),
    }
    return {"text": text, "level": 0.95, "resamples": 2000}
