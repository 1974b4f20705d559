"""Does a model think longer about difficult questions? The length of its *right* answers by
difficulty.

Wrong answers are left out, because many of them run until they are cut, and they are more frequent
among difficult questions: a model that saves nothing and adapts nothing would seem to adapt. The
slope must stay above 0 when lengths are trained down. Answers to one item are not independent, so
the items are resampled.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..base.errors import BadInput
from ..base.statistics import Interval, bootstrap


def length_slope(
    correct: ArrayLike,
    tokens: ArrayLike,
    difficulty: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Tokens per step of difficulty: the slope of least squares of the length of right answers.

    Args: correct, tokens of the answers [items, samples], NaN for ungraded; difficulty [items].
    Raises BadInput when the right answers have fewer than two difficulties.
    """
    right, lengths, x = _items(correct, tokens, difficulty)
    if len(np.unique(x[np.nansum(right, axis=1) > 0])) < 2:
        raise BadInput("a slope needs right answers at two difficulties or more")
    x = x - x.mean()
    sums = _sums(right, lengths)
    moments = np.column_stack([sums, sums * x[:, None], sums[:, 0] * x * x])

    def slope(counts: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, " rows"]:
        n, y, nx, xy, xx = (counts @ moments).T
        variance = n * xx - nx * nx
        is_flat = variance <= 1e-9 * n * xx  # all right answers of one difficulty
        return np.where(is_flat, np.nan, (n * xy - nx * y) / np.where(is_flat, 1, variance))

    return bootstrap(slope, len(x), resamples, seed)


def hard_easy_ratio(
    correct: ArrayLike,
    tokens: ArrayLike,
    difficulty: ArrayLike,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """The mean length of right answers to the most difficult third of the items, divided by that of
    the easiest third. Items as difficult as the border are in the third. Arguments as in
    `length_slope`. Raises BadInput when a third has no right answer.
    """
    right, lengths, x = _items(correct, tokens, difficulty)
    levels, third = np.sort(x), -(-x.size // 3)
    low, high = levels[third - 1], levels[-third]
    sums = _sums(right, lengths)
    columns = np.column_stack([sums * (x <= low)[:, None], sums * (x >= high)[:, None]])
    if low == high or not columns.sum(0)[[0, 2]].all():
        raise BadInput("the easiest and the most difficult third both need right answers")

    def ratio(counts: Float[np.ndarray, "rows n"]) -> Float[np.ndarray, " rows"]:
        num_easy, easy, num_hard, hard = (counts @ columns).T
        is_empty = (num_easy == 0) | (num_hard == 0)
        divisor = np.where(is_empty, 1, num_hard * easy)
        return np.where(is_empty, np.nan, hard * num_easy / divisor)

    return bootstrap(ratio, len(x), resamples, seed)


def by_difficulty(
    correct: ArrayLike, tokens: ArrayLike, difficulty: ArrayLike
) -> dict[float, dict[str, float | None]]:
    """For each difficulty the accuracy of the graded answers, the mean length of the right ones,
    and the number of items; None where there are no such answers. Arguments as in `length_slope`.
    """
    right, lengths, x = _items(correct, tokens, difficulty)
    table: dict[float, dict[str, float | None]] = {}
    for level in np.unique(x).tolist():
        rows = x == level
        num_graded, num_right = int((~np.isnan(right[rows])).sum()), float(np.nansum(right[rows]))
        length = float(np.nansum(right[rows] * lengths[rows]))
        table[level] = {
            "items": int(rows.sum()),
            "accuracy": num_right / num_graded if num_graded else None,
            "tokens_correct": length / num_right if num_right else None,
        }
    return table


def _items(
    correct: ArrayLike, tokens: ArrayLike, difficulty: ArrayLike
) -> tuple[
    Float[np.ndarray, "items samples"],
    Float[np.ndarray, "items samples"],
    Float[np.ndarray, " items"],
]:
    right, lengths, x = (np.asarray(a, dtype=np.float64) for a in (correct, tokens, difficulty))
    if right.ndim != 2 or lengths.shape != right.shape or x.shape != right.shape[:1] or not x.size:
        raise BadInput(
            f"correct and tokens should be [items, samples] and difficulty [items], got "
            f"{right.shape}, {lengths.shape} and {x.shape}"
        )
    if not np.isfinite(x).all():
        raise BadInput("items of unknown difficulty must be left out first")
    return right, lengths, x


def _sums(
    right: Float[np.ndarray, "items samples"], lengths: Float[np.ndarray, "items samples"]
) -> Float[np.ndarray, "items 2"]:
    """Of each item the number of right answers and their tokens."""
    weights = np.nan_to_num(right)
    return np.column_stack([weights.sum(1), (weights * np.nan_to_num(lengths)).sum(1)])
