"""KL(original || light): how many nats of the original's next-token distribution the light model
fails to give.

The mean over all positions of a text, not only of the targets that happen to stand there, so it
uses the whole distribution and needs far fewer tokens than perplexity to tell two models apart. It
is heavy-tailed: most tokens move little, a few move a lot, hence the median and the 99th percentile
of tokens beside the mean, and an interval that resamples windows. Top-1 agreement, the share of
positions where greedy decoding takes the same token, comes along.

Of a model with itself it reads exactly 0.0, which is the control of the measurement; the floor that
another dtype or another kernel sets is measured by evaluating the same weights in that dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ..base.statistics import bootstrap_mean
from .base import CausalModel, Metric, Scores, check_windows


@dataclass(frozen=True, eq=False)
class KL(Metric):
    """KL from `teacher` (a model or a `TeacherCache`) over `windows` (count, length + 1)."""

    teacher: CausalModel
    windows: Int[Tensor, "count positions"]
    text: str = "text"

    def __post_init__(self) -> None:
        check_windows(self.windows)

    @property
    def original(self) -> CausalModel:
        """The model to compare with."""
        return self.teacher

    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """`kl` (mean with interval, median and p99 of tokens), `top1`, and the mean of each window
        (paired tests).
        """
        assert scores.kl is not None and scores.agree is not None
        windows = scores.kl.mean(1)
        median, p99 = np.quantile(scores.kl, [0.5, 0.99])
        return {
            "kl": bootstrap_mean(windows).as_dict() | {"median": float(median), "p99": float(p99)},
            "top1": bootstrap_mean(scores.agree.mean(1)).as_dict(),
            "kl_windows": windows.tolist(),
        }
