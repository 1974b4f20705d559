"""How learning rate and weight decay change: factors that multiply the rates of each parameter
group.

    Constant     1
    Cosine       warm-up, then half a cosine from 1 to `floor`
    WSD          warm-up, stable at 1, then a decay to `floor` (Hu et al. 2024, MiniCPM; "1-sqrt":
                 Haegele et al. 2024)
    TwoStage     BitNet b1.58 (Ma et al. 2024, training tips; 2B4T report): two linear slopes with a
                 drop between them, and no weight decay after it

`steps` is the number of optimizer steps of the run; the warm-up is linear and ends with factor 1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

from ..base.errors import UsageError

DECAYS = ("linear", "1-sqrt", "cosine")


class Schedule(ABC):
    """Abstract base: the number of steps, and the factors of each."""

    steps: int

    @abstractmethod
    def lr(self, step: int) -> float:
        """The factor of the learning rate in the step with this index, from 0."""

    def weight_decay(self, step: int) -> float:
        """The factor of the weight decay."""
        return 1.0


@dataclass(frozen=True)
class Constant(Schedule):
    """The rates of the groups, after `warmup` steps."""

    steps: int
    warmup: int = 0

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup)

    def lr(self, step: int) -> float:
        """See `Schedule`."""
        return _warmup(step, self.warmup)


@dataclass(frozen=True)
class Cosine(Schedule):
    """From 1 after `warmup` steps down to `floor` in the last step."""

    steps: int
    warmup: int = 0
    floor: float = 0.1

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup)

    def lr(self, step: int) -> float:
        """See `Schedule`."""
        share = _progress(step, self.warmup, self.steps)
        slope = self.floor + (1 - self.floor) * (1 + math.cos(math.pi * share)) / 2
        return _warmup(step, self.warmup) * slope


@dataclass(frozen=True)
class WSD(Schedule):
    """Warm-up, stable, decay: 1 until the last `decay` steps, then down to `floor`.

    shape: "linear", "1-sqrt" or "cosine". A run can be continued from any stable step.
    """

    steps: int
    warmup: int = 0
    decay: int = 0
    floor: float = 0.0
    shape: str = "1-sqrt"

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup + self.decay)
        if self.shape not in DECAYS:
            raise UsageError(f"shape={self.shape!r} is not one of {', '.join(DECAYS)}")

    def lr(self, step: int) -> float:
        """See `Schedule`."""
        share = _progress(step, self.steps - self.decay, self.steps)
        height = {
            "linear": 1 - share,
            "1-sqrt": 1 - math.sqrt(share),
            "cosine": (1 + math.cos(math.pi * share)) / 2,
        }[self.shape]
        return _warmup(step, self.warmup) * (self.floor + (1 - self.floor) * height)


@dataclass(frozen=True)
class TwoStage(Schedule):
    """Linear from 1 to `drop_from` until the share `middle` of the steps, then linear from
    `drop_to` to `floor`; the weight decay is 0 after the drop.

    The defaults are those of BitNet b1.58 2B4T: 1.5e-3 to 8e-4, then 5e-4 to 0.
    """

    steps: int
    warmup: int = 375
    middle: float = 0.5
    drop_from: float = 8 / 15
    drop_to: float = 1 / 3
    floor: float = 0.0

    def __post_init__(self) -> None:
        _check(self.steps, self.warmup)
        if not 0 < self.middle < 1:
            raise UsageError(f"middle={self.middle} must lie between 0 and 1")

    @property
    def drop(self) -> int:
        """The index of the first step of the second stage."""
        return round(self.middle * self.steps)

    def lr(self, step: int) -> float:
        """See `Schedule`."""
        if step < self.drop:
            share = _progress(step, 0, self.drop)
            return _warmup(step, self.warmup) * (1 + share * (self.drop_from - 1))
        share = _progress(step, self.drop, self.steps)
        return _warmup(step, self.warmup) * (self.drop_to + share * (self.floor - self.drop_to))

    def weight_decay(self, step: int) -> float:
        """See `Schedule`."""
        return 1.0 if step < self.drop else 0.0


def _check(steps: int, needed_steps: int) -> None:
    if steps < 1 or needed_steps < 0 or needed_steps > steps:
        raise UsageError(
            f"a schedule of {steps} steps cannot hold {needed_steps} steps of warm-up and decay"
        )


def _warmup(step: int, warmup: int) -> float:
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _progress(step: int, start: int, end: int) -> float:
    """0 until `start`, 1 in the last step before `end`."""
    return min(max(step - start, 0) / max(end - 1 - start, 1), 1.0)
