"""How sure a mean is: bootstrap intervals, alone and paired.

KL and log-loss are heavy-tailed and their tokens hang together inside a sequence, so the unit that
is resampled is the sequence (a window of text), never the token: draw as many windows as there are,
with replacement, take the mean, and do so `resamples` times; the interval is read off the
percentiles of those means (Efron 1979, the percentile method).

Two models scored over the same windows are compared by the *difference* of each window: its
interval is far narrower than the two separate ones, because a hard window is hard for both. This is
what "the same resampled indices" means.

One value says nothing about its spread: the interval's ends are then NaN, which `as_dict` writes as
None. Cost: resamples x n gathered numbers, a slab of about a million at a time. Deterministic under
`seed`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from .errors import BadInput, UsageError

SLAB = 1 << 20


@dataclass(frozen=True)
class Interval:
    """A mean and the interval that resampling puts around it, all in the unit of the values."""

    mean: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of a rising function of the mean, such as `math.exp` for perplexity."""
        return Interval(
            *(function(x) if math.isfinite(x) else x for x in (self.mean, self.low, self.high))
        )

    def as_dict(self) -> dict[str, float | None]:
        """For JSON, which has no NaN: an end that is not known becomes None."""
        return {name: x if math.isfinite(x) else None for name, x in vars(self).items()}


def bootstrap_mean(
    values: ArrayLike,
    weights: ArrayLike | None = None,
    resamples: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """The (weighted) mean of `values` (n,) with its bootstrap interval at `level`.

    `weights` (n,) are sizes, such as tokens a window: a resample's mean is sum(w v) / sum(w) over
    what was drawn. Raises UsageError for a level outside (0, 1) or no resamples, BadInput for no,
    non-finite or mismatched numbers.
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

    With shared indices the difference of the means is the mean of the differences, which is what is
    resampled. An interval that excludes 0 says that the two differ. Raises as `bootstrap_mean`
    does.
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    if x.shape != y.shape:
        raise BadInput(
            f"a paired comparison needs the same items on both sides, got {x.size} and {y.size}"
        )
    return bootstrap_mean(x - y, weights, resamples, seed, level)


def _resampled_means(
    v: Float[np.ndarray, " n"], w: Float[np.ndarray, " n"], resamples: int, seed: int
) -> Float[np.ndarray, " resamples"]:
    rng = np.random.default_rng(seed)
    rows = max(1, SLAB // v.size)
    means = []
    for start in range(0, resamples, rows):
        indices = rng.integers(v.size, size=(min(rows, resamples - start), v.size))
        total = w[indices].sum(1)
        # A resample of weight zero says nothing; it is left out rather than counted as a NaN.
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
