"""Would a training have anything to learn from? Asked of a few answers, before the long work."""

from __future__ import annotations

from ..base.errors import PreflightRefused
from .marks import Marks

QUESTIONS = 64
LARGEST_CUT, LARGEST_FLAT = 0.2, 0.9


def starvation(marks: Marks) -> dict[str, float]:
    """What would starve a training: the share of answers that were cut at the limit, of groups
    whose answers are all right or all wrong, of all-wrong groups, and of ungraded answers; and the
    accuracy.
    """
    valid = marks.select(marks.has_mark)
    groups = [group.correct for _, group in marks.groups()]
    count = max(len(groups), 1)
    return {
        "accuracy": float(valid.correct.mean()) if len(valid) else float("nan"),
        "cut": float(marks.is_cut.double().mean()),
        "flat": sum(float(correct.max() - correct.min()) == 0 for correct in groups) / count,
        "all_wrong": sum(not bool((correct > 0).any()) for correct in groups) / count,
        "ungraded": float((~marks.has_mark).double().mean()),
    }


def check_start(marks: Marks, group: int) -> dict[str, float]:
    """The figures of `starvation`, of one sample of questions with `group` answers each.

    Raises PreflightRefused, which says what to change, when too many answers are cut, when no
    answer is right or graded, or when too few groups have answers of both kinds. Groups of only
    right answers teach length, so they count as useful.
    """
    facts = starvation(marks)
    if facts["ungraded"] == 1:
        raise PreflightRefused("the grader gave no answer a mark; try it on a gold answer first")
    if facts["cut"] > LARGEST_CUT:
        raise PreflightRefused(
            f"{facts['cut']:.0%} of the answers do not end within {marks.limit} tokens and would "
            f"count as wrong, above {LARGEST_CUT:.0%}; allow longer answers (--max-tokens "
            f"{2 * marks.limit}), or warm up with traces that end (--warm-start)"
        )
    if facts["all_wrong"] > LARGEST_FLAT:
        raise PreflightRefused(
            f"{facts['all_wrong']:.0%} of the questions have no right answer among {group}, above "
            f"{LARGEST_FLAT:.0%}: there is nothing to prefer. Take an easier task, more answers a "
            f"question (--group {2 * group}), or a warm start (--warm-start)"
        )
    return facts
