"""A distillation between models of two tokenizers: what differs from one tokenizer.

The teacher stays in memory, because its answers are about its own tokens. KL is not defined, so the
student is measured by the parts of `CrossTokenizerLoss` for each span of text that both divide, and
by its own bits per byte.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..base.events import Listener, silent, track
from ..base.run_folder import RunFolder
from ..base.statistics import bootstrap_mean
from ..distillation import AlignedBatches, CrossTokenizerLoss
from ..distillation.recipe import train
from ..models.structure import evaluation_mode
from ..training import Step
from .distill_measures import StudentMeasures
from .distill_plan import Alignment, Plan

PARTS = ("exact", "uld", "cross_entropy")


class AlignedMeasures(StudentMeasures):
    """Measures of a student with another tokenizer. teacher: loads it when it is needed."""

    distance = "exact"

    def __init__(
        self, plan: Plan, run: RunFolder, teacher: Callable[[], nn.Module], listener: Listener
    ) -> None:
        super().__init__(plan, run, None, listener)
        self.teacher = teacher

    def quality(
        self, student: nn.Module, count: int, listener: Listener = silent
    ) -> dict[str, Any]:
        """The parts of the loss for a span, with their distribution, and bits per byte."""
        alignment, settings = self._alignment, self.plan.settings
        windows = alignment.judge_windows[:count]
        loss = CrossTokenizerLoss(self.teacher(), alignment.match)
        batches = AlignedBatches(windows, 1)
        rows: list[dict[str, np.ndarray]] = []
        with evaluation_mode(student), torch.no_grad():
            for index in track(range(len(windows)), "evaluate", len(windows), listener):
                parts = loss.rows(student, batches[index])
                rows.append({name: part.double().cpu().numpy() for name, part in parts.items()})
        spans = [len(row["exact"]) for row in rows]
        quality: dict[str, Any] = {
            "text": {
                "name": Path(settings.judge).name,
                "windows": len(windows),
                "spans": sum(spans),
            },
            "level": 0.95,
        }
        for name in PARTS:
            values = np.concatenate([row[name] for row in rows])
            means = [row[name].mean() for row in rows]
            median, p99 = np.quantile(values, [0.5, 0.99])
            quality[name] = bootstrap_mean(means, spans).as_dict() | {
                "median": float(median),
                "p99": float(p99),
            }
        if len(windows) == self.num_windows:
            nats = sum(float(row["cross_entropy"].sum()) for row in rows)
            quality["bits_per_byte"] = nats / math.log(2) / alignment.judge_bytes
        return quality

    @property
    def num_windows(self) -> int:
        """All of the held-out text."""
        return len(self._alignment.judge_windows)

    @property
    def _alignment(self) -> Alignment:
        assert self.plan.alignment is not None
        return self.plan.alignment


def distill_aligned(
    student: nn.Module, teacher: nn.Module, plan: Plan, run: RunFolder, listener: Listener
) -> Iterator[Step]:
    """Train `student` beside `teacher`; yields a `Step` after each step of the optimizer."""
    alignment, recipe = plan.alignment, plan.settings.recipe
    assert alignment is not None
    epochs = recipe.epochs(len(alignment.windows), "windows")
    batches = AlignedBatches(alignment.windows, recipe.batch, epochs, recipe.seed)
    return train(
        student, batches, CrossTokenizerLoss(teacher, alignment.match), recipe, run, listener
    )
