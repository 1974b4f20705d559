"""One model against another when both accuracy and tokens changed.

*AES*, the accuracy-efficiency score (Luo et al. 2025, arXiv:2501.12570), is a dL + b dA, or
a dL - g |dA| when accuracy fell, where dL = (L0 - L) / L0 and dA = (A - A0) / A0. Its weights
change the order of models, so they are part of the result's name. Under the usual (1, 3, 5) a
model that loses a tenth of its accuracy and all its tokens scores +0.5: read it beside accuracy and
tokens, never alone.

The *Pareto front* needs no weights: a point lies on it when no other is at least as accurate and
at most as long, and better in one of the two.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike

from ..base.errors import BadInput, UsageError

AES_WEIGHTS = (1.0, 3.0, 5.0)


def aes(
    accuracy: float,
    tokens: float,
    base_accuracy: float,
    base_tokens: float,
    weights: tuple[float, float, float] = AES_WEIGHTS,
) -> dict[str, float]:
    """{"aes(1,3,5)": score}, with the weights (a, b, g) in the name. Accuracies in one unit, which
    cancels. Raises UsageError for weights below 0, BadInput for a base without accuracy or tokens.
    """
    if min(weights) < 0:
        raise UsageError(f"weights={weights} of AES should not be negative")
    if base_accuracy <= 0 or base_tokens <= 0:
        raise BadInput(
            f"AES divides by the base's accuracy {base_accuracy} and tokens {base_tokens}"
        )
    token_gain = (base_tokens - tokens) / base_tokens
    accuracy_gain = (accuracy - base_accuracy) / base_accuracy
    of_tokens, of_gain, of_loss = weights
    score = of_tokens * token_gain + (of_gain if accuracy_gain >= 0 else of_loss) * accuracy_gain
    return {f"aes({','.join(f'{weight:g}' for weight in weights)})": score}


def pareto_front(accuracy: ArrayLike, tokens: ArrayLike) -> Bool[np.ndarray, " points"]:
    """Which of the points (accuracy, tokens) lie on the front. Equal points lie on it together."""
    a, t = np.asarray(accuracy, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if a.shape != t.shape or a.ndim != 1 or not (np.isfinite(a).all() and np.isfinite(t).all()):
        raise BadInput("each point needs a finite accuracy and a finite number of tokens")
    no_worse = (a[:, None] >= a) & (t[:, None] <= t)
    better = (a[:, None] > a) | (t[:, None] < t)
    return np.logical_not((no_worse & better).any(0))


def points_on_front(
    arms: Sequence[str], accuracy: ArrayLike, tokens: ArrayLike
) -> dict[str, list[int]]:
    """For each arm, in the order of first mention, which points are on the front of all arms.

    arms: the name of each point's arm, such as "linear" for every coefficient that was tried.
    """
    on_front = pareto_front(accuracy, tokens)
    if len(arms) != on_front.size:
        raise BadInput(f"{len(arms)} names of arms for {on_front.size} points")
    return {
        arm: [i for i, name in enumerate(arms) if name == arm and on_front[i]]
        for arm in dict.fromkeys(arms)
    }
