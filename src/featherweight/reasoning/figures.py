"""What is reported of a step's answers."""

from __future__ import annotations

import torch
from torch import Tensor

from .advantages import Advantages
from .marks import Marks


def figures(marks: Marks, advantages: Advantages) -> dict[str, float]:
    """Accuracy, lengths, shares of groups, and the control's own figures. Answers without a mark
    take part in nothing but their own share; a mean over no answers is NaN.
    """
    valid = marks.select(marks.has_mark)
    is_right = valid.correct > 0
    groups = [group for _, group in marks.groups()]
    num_flat = sum(not bool((advantages.numbers[rows] != 0).any()) for rows, _ in marks.groups())
    return {
        "accuracy": float(valid.correct.mean()),
        "length": float(valid.lengths.mean()),
        "length_right": float(valid.lengths[is_right].mean()),
        "length_wrong": float(valid.lengths[~is_right].mean()),
        "cut": _share(valid.is_cut),
        "loops": _share(valid.repeats),
        "ungraded": _share(~marks.has_mark),
        "all_right": _mean([bool((group.correct > 0).all()) for group in groups]),
        "all_wrong": _mean([not bool((group.correct > 0).any()) for group in groups]),
        "no_advantage": num_flat / max(len(groups), 1),
        **advantages.facts,
    }


def by_bucket(marks: Marks) -> list[dict[str, float]]:
    """Accuracy and length of each bucket of difficulty."""
    valid = marks.select(marks.has_mark)
    rows = []
    for bucket in valid.bucket.unique().tolist():
        part = valid.select(valid.bucket == bucket)
        rows.append(
            {
                "bucket": bucket,
                "texts": len(part),
                "accuracy": float(part.correct.mean()),
                "length": float(part.lengths.mean()),
            }
        )
    return rows


def _share(flags: Tensor) -> float:
    return float(flags.double().mean()) if len(flags) else float("nan")


def _mean(flags: list[bool]) -> float:
    return _share(torch.tensor(flags))
