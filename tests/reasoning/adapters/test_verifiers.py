"""The environment for verifiers; that it is accepted is tested where verifiers is installed."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from featherweight.base.errors import Unsupported, UsageError
from featherweight.data.tasks.op_chain import OpChain
from featherweight.reasoning.adapters.verifiers import (
    TaskRubric,
    environment_rows,
    make_environment,
)

TASK = OpChain(count=3, shortest=2, longest=2)
EXAMPLE = next(iter(TASK.examples("train")))
GOLD = TASK.golds(EXAMPLE)[0]


def message(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def test_rubric() -> None:
    rubric = TaskRubric(TASK, str.split, think_end="END")
    assert rubric.correctness(message(GOLD), EXAMPLE, answer="x") == 1
    assert rubric.correctness(message(f"{GOLD} 3"), EXAMPLE) == 0
    assert rubric.is_ungraded(message(GOLD), EXAMPLE) == 0
    assert rubric.has_format(message(GOLD)) == 1
    assert [rubric.has_format(message(text)) for text in ("1", "1 END", "END 1 END")] == [0, 0, 0]
    assert rubric.think_tokens(message(GOLD)) == len(GOLD.split()) - 1
    assert rubric.think_tokens(message("1 2 3")) == 3


def test_rows() -> None:
    rows = environment_rows(TASK, "train")
    assert len(rows) == 3
    assert rows[0]["prompt"] == [{"role": "user", "content": TASK.prompt(EXAMPLE)}]
    assert TASK.grade(rows[0]["info"], rows[0]["answer"]) == 1


def test_environment_of_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The arguments, recorded by a stand-in."""
    pytest.importorskip("datasets", reason="datasets is not installed")
    package: Any = ModuleType("verifiers")
    monkeypatch.setitem(sys.modules, "verifiers", package)
    with pytest.raises(Unsupported, match="no SingleTurnEnv"):
        make_environment(TASK, str.split)
    package.SingleTurnEnv = package.Rubric = dict
    environment = make_environment(TASK, str.split, think_end="END", format_weight=0.2)
    assert len(environment["dataset"]) == 3
    assert environment["rubric"]["weights"] == [0.8, 0.2, 0, 0]


def test_settings_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verifiers", None)  # as if it were not installed
    with pytest.raises(UsageError, match="pip install"):
        make_environment(TASK, str.split)
    with pytest.raises(UsageError, match="format_weight=1"):
        make_environment(TASK, str.split, format_weight=1)
    with pytest.raises(UsageError, match="think_end is empty"):
        TaskRubric(TASK, str.split, "")
