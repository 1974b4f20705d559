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


CONVERTED = {
    "source_file_bytes": 538_090_432,
    "source_bits": 32.0,
    "published_dtype": "bfloat16",
    "published_bytes": 269_030_016,
    "published_bits": 16.0,
}


def test_the_published_size_is_compared_first(capsys: Any) -> None:
    tables.show(tables.results_table({"model": CONVERTED, "size": {"file_bytes": 68.8e6}}))
    lines = {
        line.split("  ")[1].strip(): line for line in capsys.readouterr().out.splitlines()[3:8]
    }
    assert "269.0 MB in bfloat16" in lines["weight files, original as published"]
    assert "68.8 MB" in lines["weight files, original as published"]
    assert "538.1 MB" in lines["source file of the original"]
    assert "16.00" in lines["bpw_file, everything"]
    same = CONVERTED | {"source_file_bytes": 269_060_552}
    tables.show(tables.results_table({"model": same}))
    output = capsys.readouterr().out
    assert "269.1 MB in bfloat16" in output and "source file" not in output


def test_a_plan_names_the_published_size(capsys: Any) -> None:
    @dataclass
    class Report:
        source_file_bytes: int = 538_090_432
        published_dtype: str = "bfloat16"
        published_bytes: int = 269_030_016
        bpw_file: float = 4.09
        bpw_layers: float = 4.06
        bpw_codes: float = 4.0
        file_bytes: int = 68_800_000
        peak_memory_bytes: int = 10**9
        disk_bytes: int = 10**9
        seconds_low: float = 60.0
        seconds_high: float = 90.0
        warnings: tuple[str, ...] = ()

    sizes = "(original as published 269.0 MB in bfloat16; source file 538.1 MB)"
    assert f"68.8 MB {sizes}" in tables.plan_lines(Report())[1]
    same = Report(source_file_bytes=269_060_552)
    assert "68.8 MB (original 269.1 MB in bfloat16)" in tables.plan_lines(same)[1]


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
