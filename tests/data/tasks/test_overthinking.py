"""Traces that overthink: how often they check says nothing of the difficulty, and every rule reads
their answer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.tasks.rows import write_rows

from featherweight.base.errors import BadInput
from featherweight.data.tasks import GSM8K, Arithmetic, Task
from featherweight.data.tasks.overthinking import WAIT

ANSWER = (
    "She sold 48/2 = <<48/2=24>>24 clips in May.\nIn all she sold 48+24 = <<48+24=72>>72.\n#### 72"
)


def num_checks(task: Task, split: str) -> tuple[list[int], list[int]]:
    """Checks of the traces of easy and of difficult examples."""
    checks: tuple[list[int], list[int]] = ([], [])
    for seed, example in enumerate(task.examples(split)):
        level = task.difficulty(example)
        assert level is not None
        checks[level > 3].append(task.trace(example, seed).count(WAIT))
    return checks


def test_arithmetic_checks_are_independent_of_the_size() -> None:
    easy, difficult = num_checks(Arithmetic(count=1500, largest=6), "train")
    assert set(easy) == set(difficult) == {1, 2, 3}
    assert abs(np.mean(easy) - np.mean(difficult)) < 0.12
    assert abs(np.mean(easy) - 2) < 0.1


def test_gsm8k_checks_are_independent_of_the_steps(tmp_path: Path) -> None:
    rows = [
        {"question": f"{i}?", "answer": "<<1+1=2>>2 " * (1 + i % 6) + "\n#### 2"}
        for i in range(1200)
    ]
    task = GSM8K(write_rows(tmp_path / "test.jsonl", rows))
    easy, difficult = num_checks(task, "test")
    assert set(easy) == {1, 2, 3}
    assert abs(np.mean(easy) - np.mean(difficult)) < 0.12


def test_gsm8k_traces(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "test.jsonl", [{"question": "Clips?", "answer": ANSWER}])
    example = next(GSM8K(file).examples())
    assert GSM8K(file).difficulty(example) == 2
    trace = GSM8K(file).trace(example, 3)
    thoughts, _, answer = trace.partition("\n</think>\n")
    assert answer == "#### 72"
    assert thoughts.startswith(
        "<think>\nShe sold 48/2 = 24 clips in May.\nIn all she sold 48+24 = 72.\nWait,"
    )
    assert thoughts.count("48/2 = 24. 48+24 = 72.") == thoughts.count(WAIT)
    for rule in ("flexible", "strict", "number"):
        assert GSM8K(file, rule=rule).grade(example, trace) == 1


def test_answers_without_calculations_have_no_trace(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "test.jsonl", [{"question": "Clips?", "answer": "72.\n#### 72"}])
    example = next(GSM8K(file).examples())
    assert GSM8K(file).difficulty(example) is None
    with pytest.raises(BadInput, match="no <<calculations>>"):
        GSM8K(file).trace(example, 0)
