"""`evaluate`: computes metrics of a model with one forward pass of each model for every window.

Metrics are grouped by their windows. For each window of a group, the model under test and each
distinct original run once, and all metrics of the group use the same scores. When the original *is*
the model under test, the same logits are used for both, and the KL is exactly 0.

Memory besides the models: the logits of one window for two models (2 x length x vocabulary x bytes
of the dtype; 400 MB for 1,024 x 49,152 in float32) and a few megabytes. Time: the forward passes;
computing the scores adds about a tenth for a small model.
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
from .base import (
    CausalModel,
    Metric,
    Scores,
    answer_of,
    check_finite,
    logits,
    reading,
    score,
)


@dataclass(frozen=True, eq=False)
class TextResult:
    """The measurements on one set of windows.

    `quality`: plain data for results.json. `scores`: the scores of every token.
    """

    quality: dict[str, Any]
    scores: Scores


@dataclass(frozen=True, eq=False)
class Results:
    """One `TextResult` for each set of windows, in the order of the metrics, and the seconds that
    the evaluation took.
    """

    texts: tuple[TextResult, ...]
    seconds: float

    @property
    def quality(self) -> dict[str, Any]:
        """The entry `quality` of results.json: the measurements on the first text, and those on
        other texts in the list `others`.
        """
        first, *further_texts = (text.quality for text in self.texts)
        return first | {"others": further_texts} if further_texts else first

    @property
    def scores(self) -> Scores:
        """The scores of the tokens of the first text, for paired comparisons with another run on
        the same windows.
        """
        return self.texts[0].scores


def evaluate(model: CausalModel, metrics: Sequence[Metric], listener: Listener = silent) -> Results:
    """Measure `model` with every metric of `metrics`.

    listener: receives an event for each window. The models run in evaluation mode and have their
    previous mode afterwards. The results depend only on models and windows, because intervals use a
    fixed seed. Raises UsageError when there is no metric, BadInput when a model gives numbers that
    are not finite.
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
        # The generator reports a window when it is asked for the next one. This last call reports
        # the last window.
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
            answer = (
                None
                if original is None
                else light
                if original is model
                else answer_of(original, window)
            )
            window_scores = score(light, window[1:], answer)
            check_finite(window_scores, "the model", text, index)
            scores_of_windows.append(window_scores)
            del answer
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
        "bos": _starts_with_bos(metric),
        "first_ids": metric.windows[0, :16].tolist(),
    }
    return {"text": text, "level": 0.95, "resamples": 2000}


def _starts_with_bos(metric: Metric) -> bool | None:
    """Whether each window starts with a BOS; None when nobody said it and the windows do not show
    it. Windows with different first tokens have no BOS.
    """
    first = metric.windows[:, 0]
    return False if metric.bos is None and bool((first != first[0]).any()) else metric.bos
