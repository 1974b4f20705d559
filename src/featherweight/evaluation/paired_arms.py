"""Two ways to train, compared on the same items: what accuracy and tokens changed, with intervals
from a paired bootstrap over items whose outer clusters are the seeds of training.

Each item counts by the mean over its samples, so that ten answers to one item are not ten items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..base.errors import BadInput
from ..base.statistics import Interval, percentile_interval, resampled_arm_means


@dataclass(frozen=True)
class ArmDifference:
    """accuracy: of the arm minus that of the base, from -1 to 1; tokens: the same, per answer;
    token_saving: (L0 - L) / L0, the share of the base's tokens that the arm does without;
    num_items: how many were compared; num_ungraded_items: how many were left out, because one side
    has no graded answer to them in one of its seeds.
    """

    accuracy: Interval
    tokens: Interval
    token_saving: Interval
    num_items: int
    num_ungraded_items: int


def compare_arms(
    correct: ArrayLike,
    tokens: ArrayLike,
    base_correct: ArrayLike,
    base_tokens: ArrayLike,
    pair_seeds: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> ArmDifference:
    """The difference of an arm from its base.

    Args: correct, tokens of the arm [seeds, items, samples], NaN correct for ungraded answers;
    base_correct, base_tokens of the base, of the same items and any number of seeds and samples;
    pair_seeds, see `resampled_arm_means`, which also says how often the intervals hold. Raises
    BadInput for shapes that do not agree and when no item is graded on both sides.
    """
    arm, base = _item_means(correct, tokens, "arm"), _item_means(base_correct, base_tokens, "base")
    if arm.shape[1] != base.shape[1]:
        raise BadInput(
            f"a paired comparison needs the same items: the arm has {arm.shape[1]}, the base "
            f"{base.shape[1]}"
        )
    is_graded = ~(np.isnan(arm).any((0, 2)) | np.isnan(base).any((0, 2)))
    if not is_graded.any():
        raise BadInput("no item has graded answers on both sides")
    arms = [arm[:, is_graded], base[:, is_graded]]
    (accuracy, length), (base_accuracy, base_length) = (x.mean((0, 1)).tolist() for x in arms)
    means, base_means = resampled_arm_means(arms, resamples, seed, pair_seeds)
    differences = means - base_means
    savings = 1 - means[:, 1] / base_means[:, 1]
    num_items = int(is_graded.sum())
    return ArmDifference(
        percentile_interval(accuracy - base_accuracy, differences[:, 0], level),
        percentile_interval(length - base_length, differences[:, 1], level),
        percentile_interval(1 - length / base_length, savings, level),
        num_items,
        is_graded.size - num_items,
    )


def _item_means(
    correct: ArrayLike, tokens: ArrayLike, name: str
) -> Float[np.ndarray, "seeds items 2"]:
    """Accuracy and tokens of each item over its graded samples; NaN when it has none."""
    right, lengths = np.asarray(correct, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if right.ndim != 3 or right.shape != lengths.shape or not right.size:
        raise BadInput(
            f"correct and tokens of the {name} should be [seeds, items, samples], got "
            f"{right.shape} and {lengths.shape}"
        )
    is_graded = ~np.isnan(right)
    if not (lengths[is_graded] > 0).all() or not np.isfinite(lengths[is_graded]).all():
        raise BadInput(f"every graded answer of the {name} needs a length of at least one token")
    sides = np.stack([np.where(is_graded, x, 0.0).sum(-1) for x in (right, lengths)], axis=-1)
    num_graded = is_graded.sum(-1)[..., None]
    return np.where(num_graded == 0, np.nan, sides / np.maximum(num_graded, 1))
