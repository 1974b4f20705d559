"""The number of an answer is read where the rules say, and forms that would gain without being
right are refused.
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import pytest
from tests.data.tasks.rows import ROWS, write_rows

from featherweight.base.errors import UsageError
from featherweight.data import tasks
from featherweight.data.tasks import math_verified
from featherweight.data.tasks.stated_numbers import number_grade, stated_number

NUMBERS = {
    "18": 18,
    "So it is 18.": 18,
    "18.00": 18,
    "36/2": 18,
    "36 / 2": 18,
    r"\boxed{\frac{3}{4}}": Fraction(3, 4),
    r"\boxed{-\dfrac{3}{4}}": Fraction(-3, 4),
    r"\boxed{x = 5 \text{ hens}}": 5,
    "$1,080": 1080,
    "-$5.50": Fraction(-11, 2),
    "−5": -5,
    "10-5": 5,
    "24/2 = 12": 12,
    "12km": 12,
    ".5": Fraction(1, 2),
    "50%": 50,
    "#### 7 apples\n": 7,
    r"#### \boxed{7}": 7,
    "<think>\n1 + 1 = 2, \\boxed{9}, #### 8\n</think>\nIt is 2.": 2,
    "thoughts of a prompt that opened them</think> 3": 3,
    "": None,
    "no number": None,
    "1/0": None,
    r"\boxed{}": None,
    r"\boxed{5": None,
    "1e5": None,
    "9" * 5000: None,
}


@pytest.mark.parametrize("answer", NUMBERS)
def test_stated_numbers(answer: str) -> None:
    assert stated_number(answer) == NUMBERS[answer]


@pytest.mark.parametrize(
    "answer",
    [
        r"\boxed{5} or \boxed{6}",
        r"\boxed{5} \boxed{5}",
        r"\boxed{5 or 6}",
        r"\boxed{6} #### 5",
        "#### 5\n#### 6",
        "#### 5 or 6",
        "<think>a</think>b</think> 5",
        "<think><think>a</think> 5",
        "<think>a</think><think> 5",
        "<think>a</think><think>b</think> 5",
        "<think> 5",
        "long reasoning <think>a</think> 5",
        f"<think>a</think>{' reasoning after it' * 20} 5",
    ],
)
def test_format_hacks_refused(answer: str, tmp_path: Path) -> None:
    assert stated_number(answer) is None
    file = write_rows(tmp_path / "a.jsonl", [{"question": "2+3?", "answer": "#### 5"}])
    for task in (tasks.GSM8K(file, rule="number"), tasks.Arithmetic()):
        assert task.grade({"question": "2+3?", "answer": "#### 5"}, answer) == 0
        assert task.grade({"question": "2+3?", "answer": "#### 5"}, "<think>a</think> 5") == 1


def test_ungraded_is_masked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gold answer that cannot be read leaves the answer without a grade, neither right nor
    wrong.
    """
    assert number_grade("no number", "5") is None
    package = SimpleNamespace(
        parse=lambda text, **settings: [text] if "?" not in text else [],
        verify=lambda gold, answer, **settings: gold == answer,
    )
    monkeypatch.setitem(sys.modules, "math_verify", package)
    file = write_rows(tmp_path / "a.jsonl", [{"question": "2+3?", "answer": "#### 5"}])
    task = tasks.GSM8K(file, rule="math_verify")
    with tasks.Grader(task) as grader:
        assert grader({"answer": "#### ?"}, "?").score is None
        assert grader({"answer": "#### 5"}, "5").score == 1
        assert grader({"answer": "#### 5"}, "6").score == 0
        assert grader({"answer": "#### 5"}, "<think> 5").score == 0
        assert "cannot say" in grader({"answer": "#### ?"}, "5").reason


def test_math_verify_judges(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    for gold, right, refused in [
        ("$\\frac{1}{2}$", "\\boxed{0.5}", "\\boxed{0.6}"),
        ("5", "#### 5", "#### 6"),
        ("$x \\in [1, 2)$", "<think>a</think> $x \\in [1, 2)$", "$x \\in [1, 2]$"),
    ]:
        assert math_verified.math_verify_grade(gold, right) == 1
        assert math_verified.math_verify_grade(gold, refused) == 0
    assert math_verified.math_verify_grade("", "5") is None
    assert math_verified.math_verify_grade("5", r"\boxed{5} \boxed{6}") == 0
    file = write_rows(tmp_path / "a.jsonl", ROWS["GSM8K"])
    task = tasks.GSM8K(file, rule="math_verify")
    example = next(iter(task.examples()))
    with tasks.Grader(task) as grader:
        answers = (task.trace(example, 0), "\\boxed{1080}", "1081")
        assert [grader(example, answer).score for answer in answers] == [1, 1, 0]


def test_packages_that_are_missing_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("math_verify", "reasoning_gym", "reasoning_gym.factory"):
        monkeypatch.setitem(sys.modules, name, None)
    file = write_rows(tmp_path / "a.jsonl", ROWS["GSM8K"])
    with pytest.raises(UsageError, match=r"pip install featherweight\[math-verify\]"):
        tasks.GSM8K(file, rule="math_verify")
    with pytest.raises(UsageError, match=r"pip install featherweight\[reasoning-gym\]"):
        tasks.ReasoningGym()
