"""The tables show the figures of results.json, with dashes for what is missing, and the plan groups
equal layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from featherweight.cli import tables
from featherweight.workflows.doctor import Finding


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
    output = capsys.readouterr().out
    assert "5.0 MB" in output
    assert "perplexity" not in output


def test_plan_groups_equal_layers(capsys: Any) -> None:
    @dataclass(frozen=True)
    class Report:
        lines = (Line("a.0"), Line("head", (49152, 576), "Int(bits=8)", "lm_head"), Line("a.1"))

    tables.show(tables.plan_table(Report(), every_layer=False))
    output = capsys.readouterr().out
    assert "2 like a.0" in output
    assert "2.0 MB" in output
    tables.show(tables.plan_table(Report(), every_layer=True))
    assert "a.1" in capsys.readouterr().out


def test_checks(capsys: Any) -> None:
    checks = [
        Finding("a", True, True, "fine"),
        Finding("b", False, True, "[gone]", "get it"),
        Finding("c", False, False, ""),
    ]
    tables.show(tables.checks_table(checks))
    output = capsys.readouterr().out
    assert [output.index(word) for word in ("ok", "FAILED", "note")] == sorted(
        output.index(word) for word in ("ok", "FAILED", "note")
    )
    assert "[gone] (get it)" in output
