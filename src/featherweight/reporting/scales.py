"""Scales of an axis: values to percent of its length, and the round values to mark on it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from typing import Any

from .numbers import is_number


class Scale:
    """Values to percent, linear or logarithmic, from `low` at 0 % to `high` at 100 %.

    `low` must be positive for a logarithmic scale. A `high` that is not above `low` is replaced, so
    that a single value has a scale too.
    """

    def __init__(self, low: float, high: float, log: bool = False) -> None:
        self.low, self.log = low, log
        self.high = high if high > low else low + (abs(low) or 1.0)

    def __call__(self, value: float) -> float:
        """Percent of the length, clipped to 0 to 100."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(max(value, low))
        return min(100.0, max(0.0, 100 * (value - low) / (high - low)))

    def ticks(self, count: int = 5) -> list[float]:
        """At most `count` round values on the scale."""
        return (log_ticks if self.log else linear_ticks)(self.low, self.high, count)


def finite(values: Iterable[Any]) -> list[float]:
    """The values that are finite numbers."""
    return [float(value) for value in values if is_number(value)]


def fitting_scale(
    values: Iterable[Any], log: bool = False, zero: bool = False, margin: float = 0.06
) -> Scale:
    """A scale that holds all `values` with a margin at both ends (a fraction of their span).

    It never goes below 0 when no value does, and begins at 0 for `zero`.
    """
    numbers = finite(values) or [0.0, 1.0]
    low, high = min(numbers), max(numbers)
    if log:
        factor = (high / low) ** margin if high > low else 1.2
        return Scale(low / factor, high * factor, log=True)
    padding = margin * (high - low) or 0.1 * abs(high) or 1.0
    bottom = low - padding if low < 0 else max(0.0, low - padding)
    return Scale(min(0.0, low) if zero else bottom, high + padding)


def linear_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` round values (1, 2 or 5 x a power of ten apart) that lie in [low, high]."""
    span = high - low
    if not span > 0:
        return [low]
    power = 10 ** math.floor(math.log10(span / count))
    steps = (power * factor for factor in itertools.chain((1, 2, 5), (10, 20, 50)))
    step = next(s for s in steps if math.floor(high / s + 1e-9) - math.ceil(low / s - 1e-9) < count)
    first = math.ceil(low / step - 1e-9)
    decimals = 3 - math.floor(math.log10(step))  # drops the noise of the multiplication
    return [round(step * i, decimals) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Powers of ten in [low, high], with 2 and 5 times them where there are few, and every second,
    third, ... power where there are many; `linear_ticks` when the interval holds fewer than two.
    """
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    if len(powers) > count:
        return [10.0**power for power in powers[:: -(-len(powers) // count)]]
    for factors in ((1, 2, 5), (1, 3), (1,)):
        values = [
            round(factor * 10.0**power, 12 - power)
            for power in range(powers.start - 1, powers.stop + 1)
            for factor in factors
        ]
        marks = [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
        if 2 <= len(marks) <= count:
            return marks
    return linear_ticks(low, high, count)
