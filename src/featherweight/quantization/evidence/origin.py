"""The chapters on how a model was made: calibration, recipe, times, machine and versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import COUNT, SECONDS, Bar, Bars, Chapter, Column, Section, Table, Text, numbers
from ...reporting.templating import as_yaml
from .results import number_at, yes_no


def describe_calibration(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter with the text on which curvature was measured; None without calibration."""
    calibration = results["calibration"]
    if not calibration["sources"] and calibration.keys() <= {"sources"}:
        return None
    items: list[Section] = []
    if calibration["sources"]:
        columns = [
            Column("Source"),
            Column("Licence"),
            Column("Sequences", COUNT),
            Column("Tokens", COUNT),
        ]
        rows = [
            [
                str(source.get("name", "")),
                str(source.get("licence", "")),
                number_at(source, "sequences"),
                number_at(source, "tokens"),
            ]
            for source in calibration["sources"]
        ]
        items.append(Table("Sources", columns, rows))
    sequences, sha256 = calibration.get("sequences"), calibration.get("tokens_sha256")
    facts = []
    if numbers.is_number(sequences):
        length = numbers.count(calibration.get("length"))
        facts.append(("Sequences", f"{numbers.count(sequences)} of {length} tokens"))
    facts += [
        ("Seed", _text(calibration.get("seed"))),
        ("BOS", yes_no(calibration.get("bos"))),
        ("Chat template", str(calibration.get("template") or "none")),
        ("SHA-256 of the tokens", f"`{sha256}`" if sha256 else ""),
        ("Overlap with the evaluation text", _text(calibration.get("overlap"))),
    ]
    items.append(Text("", facts=[(name, value) for name, value in facts if value]))
    note = (
        "The text on which curvature was measured. The hash covers every token id in order: the "
        "same hash is the same calibration."
    )
    return Chapter("Calibration", items, note)


def describe_origin(results: Mapping[str, Any]) -> Chapter:
    """The chapter with recipe, times, machine, versions, and the warnings of the run."""
    recipe = as_yaml(results.get("recipe"))
    note = "Given back to `fw quantize --config` it makes the same weights."
    items: list[Section] = [
        Text("Recipe", note if recipe else "Not recorded.", code=recipe, half_width=True)
    ]
    seconds = {
        str(stage): float(value)
        for stage, value in results["seconds"].items()
        if numbers.is_number(value) and stage != "total"
    }
    if seconds:
        bars = [Bar(stage, value) for stage, value in seconds.items()]
        title = f"Time, {numbers.duration(sum(seconds.values()))} in all"
        stages = Bars(title, bars, SECONDS, noun="Stage", compact=True, half_width=True)
        items.append(stages)
    machine = [
        (str(key).replace("_bytes", "").replace("_", " "), _machine_fact(str(key), value))
        for key, value in results["machine"].items()
    ]
    peak = number_at(results, "peak_memory_bytes")
    if machine:
        machine.append(("peak memory of the run", "" if peak is None else numbers.size(peak)))
        facts = [(name, value) for name, value in machine if value]
        items.append(Text("Machine", facts=facts, half_width=True))
    if results["versions"]:
        versions = [(str(key), str(value)) for key, value in results["versions"].items()]
        items.append(Text("Versions", facts=versions, half_width=True))
    warnings = [str(warning) for warning in results["warnings"]]
    items.append(Text("Warnings", "" if warnings else "None.", warnings=warnings))
    return Chapter("How it was made", items)


def _machine_fact(key: str, value: Any) -> str:
    return numbers.size(value) if key.endswith("_bytes") else _text(value)


def _text(value: Any) -> str:
    """`value` as text; empty for None."""
    return "" if value is None else str(value)
