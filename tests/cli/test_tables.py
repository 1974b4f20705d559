"""What is printed comes from results.json, with dashes for what is missing, and the plan groups its
layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from featherweight.base.events import Event
from featherweight.cli import tables
from featherweight.cli.progress import clock, pace
from featherweight.workflows.doctor import Check


@dataclass(frozen=True)
class Line:
    name: str
    shape: tuple[int, int] = (576, 576)
    format: str = "Trellis(bits=2)"
    pattern: str = "*"
    bits: int = 8_000_000


def test_missing_figures_are_dashes(capsys: Any) -> None:
    tables.show(tables.results_table({}))
    assert tables.DASH in capsys.readouterr().out


def test_without_evaluation_only_sizes_are_shown(capsys: Any) -> None:
    tables.show(tables.results_table({"size": {"file_bytes": 5e6, "bpw_file": 3.5}}))
    printed = capsys.readouterr().out
    assert "5.0 MB" in printed
    assert "perplexity" not in printed


def test_plan_groups_equal_layers(capsys: Any) -> None:
    @dataclass(frozen=True)
    class Report:
        lines = (Line("a.0"), Line("head", (49152, 576), "Int(bits=8)", "lm_head"), Line("a.1"))

    tables.show(tables.plan_table(Report(), every_layer=False))
    printed = capsys.readouterr().out
    assert "2 like a.0" in printed
    assert "2.0 MB" in printed
    tables.show(tables.plan_table(Report(), every_layer=True))
    assert "a.1" in capsys.readouterr().out


def test_checks(capsys: Any) -> None:
    checks = [
        Check("a", True, True, "fine"),
        Check("b", False, True, "[gone]", "get it"),
        Check("c", False, False, ""),
    ]
    tables.show(tables.checks_table(checks))
    printed = capsys.readouterr().out
    assert [printed.index(word) for word in ("ok", "FAILED", "note")] == sorted(
        printed.index(word) for word in ("ok", "FAILED", "note")
    )
    assert "[gone] (get it)" in printed


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (Event("s", 0, 4), ""),
        (Event("s", 2, 4, 8.0, 8.0), "4.0 s each, 0:08 left"),
        (Event("s", 200, 400, 10.0, 10.0), "20.0/s, 0:10 left"),
        (Event("s", 4, 4, 71.0, 0.0), "took 1:11"),
        (Event("s", 3, 4, 71.0, None), ""),
    ],
)
def test_pace(event: Event, expected: str) -> None:
    assert pace(event) == expected


def test_clock() -> None:
    assert [clock(value) for value in (0, 59.6, 751, 3723)] == ["0:00", "1:00", "12:31", "1:02:03"]
