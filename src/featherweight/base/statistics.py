"""Bootstrap intervals of a mean and of a paired difference of means, and the score interval of
the difference of two rates.

KL and log-loss are heavy-tailed, and the tokens of a sequence are correlated. So the unit of
resampling is the sequence (a window of text) and not the token: as many windows as there are are
drawn with replacement, their mean is computed, and this is repeated `resamples` times. The ends of
the interval are percentiles of these means (the percentile method, Efron 1979).

Two models that were scored on the same windows are compared by the *difference* of each window. Its
interval is far narrower than those of the two means, because a window that is difficult for one
model is difficult for the other, too. For this, both models must use the same resampled indices.

A single value has no spread, so the ends of its interval are NaN, which `as_dict` writes as None.
Cost: resamples x n gathered numbers, about a million at a time. The result is determined by `seed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .errors import BadInput, UsageError

SLAB = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A mean and the ends of its bootstrap interval, all in the unit of the values."""

    mean: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of an increasing function of the mean, such as `math.exp` for perplexity."""
        return Interval(
            *(function(x) if math.isfinite(x) else x for x in (self.mean, self.low, self.high))
        )

    def as_dict(self) -> dict[str, float | None]:
        """The interval as data for JSON, where NaN becomes None."""
        return {name: x if math.isfinite(x) else None for name, x in vars(self).items()}


def bootstrap_mean(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The (weighted) mean of `values` (n,) with its bootstrap interval at `level`.

    weights: sizes (n,), such as the number of tokens of a window; the mean of a resample is
    sum(w v) / sum(w) over the drawn items. resamples: their number. seed: of the draws. Raises
    UsageError for a level outside (0, 1) or no resamples, BadInput when there are no values, when
    values are not finite, and when weights are negative, all zero or of another number.
    """
    if not 0 < level < 1 or resamples < 1:
        raise UsageError(
            f"level={level} must lie between 0 and 1, and resamples={resamples} must be at least 1"
        )
    v = _vector(values, "values")
    w = np.ones_like(v) if weights is None else _vector(weights, "weights")
    if w.shape != v.shape or w.min() < 0 or w.sum() == 0:
        raise BadInput(
            f"{w.size} weights for {v.size} values: there must be one for each, none negative, not "
            "all zero"
        )
    mean = float((w * v).sum() / w.sum())
    if v.size == 1:
        return Interval(mean, math.nan, math.nan)
    means = _resampled_means(v, w, resamples, seed)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high))


def paired_difference(
    a: ArrayLike,
    b: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """mean(a) - mean(b) over the same n items, both means taken over the same resampled indices.

    With shared indices the difference of the means is the mean of the differences, so the
    differences are resampled. When the interval excludes 0, the two means differ. Arguments and
    errors as in `bootstrap_mean`.
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.shape != y.shape:
        raise BadInput(
            f"a paired comparison needs the same items on both sides, got {x.size} and {y.size}"
        )
    return bootstrap_mean(x - y, weights, resamples, seed, level)


def paired_rate_difference(a: Sequence[bool], b: Sequence[bool], level: float = 0.95) -> Interval:
    """The rate of `a` minus the rate of `b` over the same n items, with its interval.

    The score interval for paired proportions (Newcombe 1998, Statistics in Medicine 17:2635, method
    10). It also holds for rates near 0 and for a few items, where a bootstrap of n equal values
    would have no width. Raises UsageError for a level outside (0, 1), BadInput for no items or
    another number on one side.
    """
    if not 0 < level < 1:
        raise UsageError(f"level={level} must lie between 0 and 1")
    if len(a) != len(b) or not a:
        raise BadInput(
            f"a paired comparison needs the same items on both sides, got {len(a)} and {len(b)}"
        )
    n, z = len(a), NormalDist().inv_cdf((1 + level) / 2)
    num_a, num_b = sum(a), sum(b)
    num_both = sum(x and y for x, y in zip(a, b, strict=True))
    num_neither = n - num_a - num_b + num_both
    covariance = float(num_both * num_neither - (num_a - num_both) * (num_b - num_both))
    if covariance > 0:  # the correction for continuity
        covariance = max(covariance - n / 2, 0.0)
    spread = num_a * (n - num_a) * num_b * (n - num_b)
    correlation = covariance / math.sqrt(spread) if spread else 0.0
    rate_a, rate_b, difference = num_a / n, num_b / n, (num_a - num_b) / n
    (low_a, high_a), (low_b, high_b) = (_score_ends(k, n, z) for k in (num_a, num_b))

    def width(x: float, y: float) -> float:
        return math.sqrt(max(0.0, x * x - 2 * correlation * x * y + y * y))

    return Interval(
        difference,
        difference - width(rate_a - low_a, high_b - rate_b),
        difference + width(high_a - rate_a, rate_b - low_b),
    )


def _score_ends(count: int, n: int, z: float) -> tuple[float, float]:
    """The ends of Wilson's interval (1927) of the rate count / n."""
    rate, scale = count / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / scale
    return centre - half, centre + half


def _resampled_means(
    v: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"], resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    rng = np.random.default_rng(seed)
    rows = max(1, SLAB // v.size)
    means = []
    for start in range(0, resamples, rows):
        indices = rng.integers(v.size, size=(min(rows, resamples - start), v.size))
        total = w[indices].sum(1)
        # A resample whose weights are all zero has no mean, so it is left out.
        means.append((w * v)[indices].sum(1)[total > 0] / total[total > 0])
    return np.concatenate(means)


def _vector(values: ArrayLike, name: str) -> Float[np.ndarray, " n"]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or array.size == 0:
        raise BadInput(f"{name} must be a list of at least one number, got shape {array.shape}")
    if not np.isfinite(array).all():
        raise BadInput(
            f"{name} holds {int((~np.isfinite(array)).sum())} non-finite numbers of {array.size}"
        )
    return array
