"""The figures of a task from its rows: means with bootstrap intervals over examples.

Ungraded answers are left out of the means and counted. For a continuation the perplexity is
exp(-mean log-probability), for generation the mean length and the share of answers that were cut
are given.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..base.statistics import bootstrap_mean
from ..data.tasks import Task, files_of, settings_of
from .task_rows import Row

LEVEL, RESAMPLES = 0.95, 2000


def summarize_task(task: Task, rows: Sequence[Row]) -> dict[str, Any]:
    """The entry of `task` for results.json, from the rows of its examples (at least one)."""
    metrics = {name: _mean([row["scores"][name] for row in rows]) for name in rows[0]["scores"]}
    if task.kind == "continuation":
        loss = bootstrap_mean([-row["logprob"] for row in rows], level=LEVEL, resamples=RESAMPLES)
        metrics["perplexity"] = loss.map(math.exp).as_dict()
    reasons = Counter(row["ungraded"] for row in rows if "ungraded" in row)
    entry = {
        "name": task.name,
        "kind": task.kind,
        "settings": settings_of(task),
        "files": {name: path.name for name, path in files_of(task).items()},
        "items": len(rows),
        "ungraded": sum(reasons.values()),
        "ungraded_reasons": dict(reasons.most_common(5)),
        "truncated": sum("truncated" in row for row in rows),
        "metrics": metrics,
        "level": LEVEL,
        "resamples": RESAMPLES,
    }
    if task.kind == "generation":
        entry["mean_tokens"] = sum(row["num_tokens"] for row in rows) / len(rows)
        entry["cut_answers"] = sum(row["finish"] == "length" for row in rows)
        entry["max_tokens"] = task.max_tokens
    return entry


def _mean(scores: Sequence[float | None]) -> Mapping[str, float | None]:
    graded_scores = [score for score in scores if score is not None]
    if not graded_scores:
        return {"mean": None, "low": None, "high": None}
    return bootstrap_mean(graded_scores, level=LEVEL, resamples=RESAMPLES).as_dict()
