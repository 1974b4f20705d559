"""How many tokens the answers of a reasoning model take, and what they are worth: functions of
graded answers alone, without a model.

An answer is a number from 0 to 1, `correct` (NaN for an answer that could not be graded, which is
left out everywhere), and its length in tokens. Which tokens count, all or those of thinking, is the
caller's choice, and belongs in the report. Nothing is shaped here: a long right answer is right.

- *Accuracy at a budget* B: mean of c 1[L <= B], computed from finished answers. A model that is
  stopped at B and made to answer may do better. The whole curve is a step function of B; its area
  over log B, divided by that of a model that is always right, weighs each doubling alike.
- *Overthinking-adjusted accuracy*: the area of mean c 1[L < t] over t up to 1000 tokens, which is
  the mean of c max(0, 1 - L / 1000) (OptimalThinkingBench 2025, arXiv:2508.13141).
- *Outcome efficiency*: mean of c F / L, where F are the tokens up to the first right answer (Chen
  et al. 2024, arXiv:2412.21187). *Underthinking*: over the wrong answers, the mean of 1 - F / L,
  where F are the tokens to the end of the first thought that led to the right answer, and 0 when
  there is none (Wang et al. 2025, arXiv:2501.18585).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from ..base.errors import BadInput, UsageError


def accuracy_at_budgets(
    correct: ArrayLike, tokens: ArrayLike, budgets: ArrayLike
) -> Float[np.ndarray, " budgets"]:
    """For each budget the share of the answers [n] that are right and no longer than it."""
    right, lengths = graded_answers(correct, tokens)
    order = np.argsort(lengths)
    sums = np.concatenate([[0.0], np.cumsum(right[order])])
    places = np.searchsorted(lengths[order], np.asarray(budgets, dtype=np.float64), side="right")
    return sums[places] / right.size


def budget_curve(
    correct: ArrayLike, tokens: ArrayLike
) -> tuple[Float[np.ndarray, " steps"], Float[np.ndarray, " steps"]]:
    """(budgets, accuracies) of the whole curve: every length at which an answer ends, and the
    accuracy from there to the next.
    """
    budgets = np.unique(graded_answers(correct, tokens)[1])
    return budgets, accuracy_at_budgets(correct, tokens, budgets)


def budget_area(correct: ArrayLike, tokens: ArrayLike, shortest: float, longest: float) -> float:
    """The exact area under accuracy over log B, for B from `shortest` to `longest` tokens, divided
    by log(longest / shortest): from 0 to 1. Raises UsageError for budgets that are no range.
    """
    if not 0 < shortest < longest or not math.isfinite(longest):
        raise UsageError(f"budgets from {shortest} to {longest} tokens are no range above 0")
    right, lengths = graded_answers(correct, tokens)
    widths = np.log(longest / np.clip(lengths, shortest, longest))
    return float((right * widths).mean() / math.log(longest / shortest))


def overthinking_adjusted_accuracy(
    correct: ArrayLike, think_tokens: ArrayLike, limit: float = 1000
) -> float:
    """Accuracy in which a right answer counts less by each of its think tokens, and nothing from
    `limit` tokens on.
    """
    if limit <= 0:
        raise UsageError(f"limit={limit} should be a number of tokens above 0")
    right, lengths = graded_answers(correct, think_tokens)
    return float((right * np.maximum(0, 1 - lengths / limit)).mean())


def tokens_per_correct(correct: ArrayLike, tokens: ArrayLike) -> float:
    """All tokens divided by the number of right answers; infinite when none is right."""
    right, lengths = graded_answers(correct, tokens)
    return float(lengths.sum() / right.sum()) if right.sum() else math.inf


def outcome_efficiency(correct: ArrayLike, first_correct: ArrayLike, tokens: ArrayLike) -> float:
    """The mean over all answers of c F / L. first_correct: F of each answer, NaN where it never
    states the right one. Raises BadInput for a right answer without F.
    """
    right, lengths, first = graded_answers(correct, tokens, first_correct)
    if bool((np.isnan(first) & (right > 0)).any()):
        raise BadInput("a right answer states the right answer somewhere: first_correct is missing")
    return float((right * np.nan_to_num(first) / lengths).mean())


def tokens_after_first_correct(
    correct: ArrayLike, first_correct: ArrayLike, tokens: ArrayLike
) -> float:
    """The mean of L - F over the answers that state the right one, even if they then leave it; NaN
    when none does.
    """
    _, lengths, first = graded_answers(correct, tokens, first_correct)
    tails = (lengths - first)[~np.isnan(first)]
    return float(tails.mean()) if tails.size else math.nan


def underthinking_rate(correct: ArrayLike, first_thought: ArrayLike, tokens: ArrayLike) -> float:
    """The mean over the wrong answers of 1 - F / L; 0 when none is wrong. first_thought: F of each
    answer, NaN where no thought was right.
    """
    right, lengths, first = graded_answers(correct, tokens, first_thought)
    is_wrong = right == 0
    shares = np.where(np.isnan(first), 0.0, 1 - first / lengths)[is_wrong]
    return float(shares.mean()) if shares.size else 0.0


def pass_at_k(num_answers: ArrayLike, num_correct: ArrayLike, k: int) -> float:
    """The chance that one of k answers is right, without bias from n >= k answers to each item, of
    which c are right: the mean of 1 - C(n-c, k) / C(n, k) (Chen et al. 2021, arXiv:2107.03374).

    num_answers, num_correct: of each item. Raises UsageError when an item has fewer than k answers.
    """
    n = np.atleast_1d(np.asarray(num_answers, dtype=np.int64))
    c = np.atleast_1d(np.asarray(num_correct, dtype=np.int64))
    if n.shape != c.shape or not n.size or bool(((c < 0) | (c > n)).any()):
        raise BadInput("each item needs its answers and how many of them are right, at most all")
    if k < 1 or k > n.min():
        raise UsageError(f"pass@{k} needs at least {k} answers to every item, one has {n.min()}")
    # C(n-c, k) / C(n, k) is a product of k factors, one of which is 0 when c > n - k.
    i = np.arange(k)[:, None]
    return float(1 - np.prod(np.maximum(0, (n - c - i) / (n - i)), axis=0).mean())


def graded_answers(
    correct: ArrayLike, tokens: ArrayLike, first: ArrayLike | None = None
) -> tuple[Float[np.ndarray, " graded"], ...]:
    """`correct`, `tokens` and maybe `first` of the answers that are graded.

    Raises BadInput for other numbers of answers on the sides, answers outside 0 to 1, lengths that
    are not above 0, first places beyond the length, and when no answer is graded.
    """
    names = ("correct", "tokens", "first")
    sides = [np.asarray(x, dtype=np.float64) for x in (correct, tokens, first) if x is not None]
    if len({side.shape for side in sides}) != 1 or sides[0].ndim != 1:
        shapes = ", ".join(f"{n} {s.shape}" for n, s in zip(names, sides, strict=False))
        raise BadInput(f"one number for each answer is needed on all sides, got shapes {shapes}")
    is_graded = ~np.isnan(sides[0])
    right, lengths, *places = (side[is_graded] for side in sides)
    if not right.size:
        raise BadInput("no answer is graded, so nothing can be measured")
    if right.min() < 0 or right.max() > 1:
        raise BadInput("correct should be from 0 to 1, or NaN for an ungraded answer")
    if not np.isfinite(lengths).all() or lengths.min() <= 0:
        raise BadInput("every graded answer needs a length of at least one token")
    for place in places:
        if bool(((place <= 0) | (place > lengths)).any()):
            raise BadInput("the first right place must lie within its answer, from 1 to its length")
    return (right, lengths, *places)
