"""How strong the pressure for shorter answers may be: a multiplier for each bucket of difficulty,
raised slowly while accuracy holds, lowered as fast as accuracy falls.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ..base.errors import UsageError
from .marks import Marks
from .rewards import State


@dataclass(frozen=True)
class Governor:
    """Dual ascent on "the accuracy of a bucket is at least its best so far, less a tolerance".

    After each step, with the accuracy of the bucket among the answers of the step, smoothed with
    `decay`: lambda += eta (accuracy - (reference - tolerance)), kept in [0, strongest], where the
    reference is the best smoothed accuracy since the warm-up. Below reference - 2 tolerances lambda
    is 0 until the accuracy is back above reference - tolerance. eta = strongest / (ramp tolerance),
    so that without a loss full pressure takes `ramp` steps; a rise is at most strongest / ramp a
    step, a fall follows the loss. lambda is 0 in the first `warmup` steps, which should be enough
    to smooth over: the first averages are of few answers, and the best of them is a lucky number.

    tolerance: an accuracy, in 0 to 1; the best of noisy figures is too high, so let it be three
    standard errors of the smoothed accuracy. Our own derivation, see docs/reasoning.md.
    """

    strongest: float = 1.0
    tolerance: float = 0.02
    ramp: int = 30
    warmup: int = 20
    decay: float = 0.9

    def __post_init__(self) -> None:
        if self.strongest < 0 or self.tolerance <= 0 or not 0 <= self.decay < 1:
            raise UsageError(
                f"strongest={self.strongest} is at least 0, tolerance={self.tolerance} above 0, "
                f"decay={self.decay} in 0 to 1"
            )
        if self.ramp < 1 or self.warmup < 0:
            raise UsageError(
                f"ramp={self.ramp} is at least 1 step, warmup={self.warmup} at least 0"
            )

    def start(self, buckets: int) -> dict[str, Tensor]:
        """The state before the first step: pressure, smoothed accuracy and reference of each
        bucket (NaN: not seen), and whether it is closed.
        """
        unseen = torch.full((buckets,), torch.nan, dtype=torch.float64)
        return {
            "pressure": torch.zeros(buckets, dtype=torch.float64),
            "accuracy": unseen.clone(),
            "reference": unseen.clone(),
            "is_closed": torch.zeros(buckets, dtype=torch.bool),
            "steps": torch.zeros((), dtype=torch.int64),
        }

    def update(self, state: State, marks: Marks) -> dict[str, Tensor]:
        """The state after a step in which `marks` was sampled, on all ranks together."""
        has_mark = marks.has_mark
        buckets = len(state["pressure"])
        bucket = marks.bucket[has_mark].cpu()
        counts = torch.bincount(bucket, minlength=buckets)
        sums = torch.zeros(buckets, dtype=torch.float64)
        sums.index_add_(0, bucket, marks.correct[has_mark].cpu())
        has_texts = counts > 0
        current = sums / counts.clamp(min=1)
        old = state["accuracy"]
        average = torch.where(old.isnan(), current, self.decay * old + (1 - self.decay) * current)
        accuracy = torch.where(has_texts, average, old)
        steps = state["steps"] + 1
        is_first = state["reference"].isnan() | (steps < self.warmup)
        best = torch.maximum(state["reference"], accuracy)
        reference = torch.where(is_first, accuracy, best)
        margin = accuracy - (reference - self.tolerance)
        is_closed = state["is_closed"] & (margin < 0) | (margin < -self.tolerance)
        eta = self.strongest / (self.ramp * self.tolerance)
        pressure = (state["pressure"] + eta * margin).clamp(0, self.strongest)
        pressure = torch.where(is_closed | (steps < self.warmup), 0.0, pressure)
        return {
            "pressure": torch.where(has_texts, pressure, state["pressure"]),
            "accuracy": accuracy,
            "reference": reference,
            "is_closed": torch.where(has_texts, is_closed, state["is_closed"]),
            "steps": steps,
        }

    def pressure(self, state: State, marks: Marks) -> Float[Tensor, " texts"]:
        """lambda of the bucket of each answer."""
        return state["pressure"].to(marks.group.device)[marks.bucket]
