"""A training that would starve is refused, and one that collapses is stopped."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from featherweight.base.errors import PreflightRefused, UsageError
from featherweight.reasoning.collapse import CollapseGuard
from featherweight.reasoning.difficulty import Buckets, thirds
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.preflight import check_start, starvation

NAN = float("nan")


def marks(correct: list[float], cut: list[bool] | None = None, size: int = 2) -> Marks:
    """Groups of `size` answers."""
    count = len(correct)
    fields: dict[str, Any] = {} if cut is None else {"is_cut": torch.tensor(cut)}
    return Marks(
        torch.tensor(correct, dtype=torch.float64),
        torch.ones(count),
        torch.arange(count) // size,
        10,
        **fields,
    )


def test_preflight_raises_on_truncation() -> None:
    with pytest.raises(PreflightRefused, match="do not end within 10 tokens.*--max-tokens 20"):
        check_start(marks([0, 0, 1, 1], [True, True, False, False]), 2)


def test_preflight_raises_without_right_answers() -> None:
    with pytest.raises(PreflightRefused, match="no right answer among 2.*--group 4"):
        check_start(marks([0, 0, 0, 0]), 2)


def test_preflight_raises_without_marks() -> None:
    with pytest.raises(PreflightRefused, match="grader"):
        check_start(marks([NAN, NAN]), 2)


def test_groups_of_right_answers_teach_length() -> None:
    assert check_start(marks([1, 1, 1, 1]), 2)["flat"] == 1


def test_starvation_by_hand() -> None:
    facts = starvation(marks([1, 0, 1, 1, 0, NAN]))
    assert facts == pytest.approx(
        {"accuracy": 3 / 5, "cut": 0, "flat": 2 / 3, "all_wrong": 1 / 3, "ungraded": 1 / 6}
    )


def test_a_collapse_is_three_low_evaluations_in_a_row() -> None:
    guard = CollapseGuard(0.8, tolerance=0.05, patience=3)
    assert not guard.take(0, 0.8, 40)
    verdicts = [
        guard.take(step, accuracy, 30 - step)
        for step, accuracy in enumerate([0.76, 0.69, 0.69, 0.71, 0.6, 0.6, 0.6], 1)
    ]
    assert verdicts == [False] * 6 + [True]
    assert guard.best == 1  # the shortest within a tolerance


def test_settings_of_the_guard() -> None:
    with pytest.raises(UsageError, match="tolerance"):
        CollapseGuard(0.5, tolerance=0)


def test_thirds() -> None:
    buckets = thirds([1, 2, 3, 4, 5, 6, None])
    assert [buckets(d) for d in (1, 2, 3, 4, 5, 6, 9, None)] == [0, 0, 1, 1, 2, 2, 2, 0]
    assert thirds([None, None]) == Buckets()
    assert thirds([3, 3, 3]).count == 1
