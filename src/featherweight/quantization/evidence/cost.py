"""The chapter on quality: KL, perplexity and agreement with their intervals, and how they were
measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import (
    Axis,
    Bar,
    Bars,
    Chapter,
    Column,
    Points,
    ReferenceLine,
    Scatter,
    Section,
    Table,
    Text,
    Unit,
    numbers,
)
from .results import confidence_level, number_at, yes_no
from .verdict import missing_measurements

MIN_WINDOWS = 8  # intervals over fewer windows are too narrow


def describe_cost(results: Mapping[str, Any]) -> Chapter:
    """The chapter with KL, perplexity and agreement, and how they were measured."""
    quality = results["quality"]
    title = "What it cost"
    if not (
        numbers.is_number(quality["kl"].get("mean"))
        or numbers.is_number(quality["light"]["perplexity"].get("mean"))
    ):
        return Chapter(title, [Text("", "Not measured: this run was not evaluated.")])
    note = (
        "KL is the distance between the next-token distributions of the original and of the light "
        "model, averaged over every token of the text; 0 means that nothing changed. Perplexity "
        "says how well each predicts the text. Intervals resample whole windows of text."
    )
    pictures = [_windows(results), _perplexities(results)]
    items: list[Section] = [picture for picture in pictures if picture is not None]
    return Chapter(title, [*items, _cost_table(results), _protocol(results)], note)


def _windows(results: Mapping[str, Any]) -> Scatter | None:
    """The KL of each window of text, which shows how far the windows lie from their mean."""
    quality, level = results["quality"], confidence_level(results)
    values = [v if numbers.is_number(v) else None for v in quality["kl_windows"]]
    mean = number_at(quality["kl"], "mean")
    if mean is None or all(value is None for value in values):
        return None
    low, high = number_at(quality["kl"], "low"), number_at(quality["kl"], "high")
    windows = Points("", values, names=[f"window {i + 1}" for i in range(len(values))])
    return Scatter(
        "KL of each window, in nats a token",
        [windows],
        Axis("KL", Unit(name="nats")),
        reference=ReferenceLine("mean", mean, low, high, f"{level} interval of the mean"),
        note=f"Line and band: the mean and its {level} interval.",
        half_width=True,
    )


def _perplexities(results: Mapping[str, Any]) -> Bars | None:
    """Perplexity of the original and of the light model with intervals, on one scale."""
    level = confidence_level(results)
    bars = []
    for key, label in (("original", "Original"), ("light", "Light")):
        entry = results["quality"][key]["perplexity"]
        mean, low, high = (number_at(entry, end) for end in ("mean", "low", "high"))
        bars.append(Bar(label, mean, low, high, tone="quiet" if key == "original" else "accent"))
    if all(bar.value is None for bar in bars):
        return None
    return Bars(
        "Perplexity",
        bars,
        Unit(decimals=2),
        noun="Model",
        note=f"Dots with {level} intervals, which are wide because windows differ; "
        "the paired change below is what compares.",
        dots=True,
        interval_name=f"{level} interval",
        half_width=True,
    )


def _cost_table(results: Mapping[str, Any]) -> Table:
    """Every figure of quality with its interval."""
    quality, ends = results["quality"], numbers.interval_ends
    kl, top1, ratio = quality["kl"], quality["top1"], quality["perplexity_ratio"]
    rows = [
        ("KL, mean, nats", numbers.number(kl.get("mean")), ends(kl)),
        ("KL, median token", numbers.number(kl.get("median")), ""),
        ("KL, 99th percentile of tokens", numbers.number(kl.get("p99")), ""),
        (
            "KL of the original with itself (control, must be 0)",
            numbers.number(quality.get("kl_self")),
            "",
        ),
    ]
    if numbers.is_number(quality.get("kl_noise_floor")):
        floor = numbers.number(quality["kl_noise_floor"])
        rows.append(("KL of the original in another dtype (noise floor)", floor, ""))
    agreement = numbers.percent(top1.get("mean"))
    rows.append(("Same most likely token", agreement, ends(top1, as_percent=True)))
    for key in ("original", "light"):
        entry = quality[key]["perplexity"]
        rows.append((f"Perplexity, {key}", numbers.decimal(entry.get("mean"), 2), ends(entry, 4)))
    if numbers.is_number(ratio.get("mean")):
        label = "Perplexity, light over original (paired)"
        rows.append((label, numbers.number(ratio["mean"], 4), ends(ratio, 4)))
    for other_text in quality["others"]:
        label = f"KL on {other_text['text'].get('name')}"
        rows.append((label, numbers.number(other_text["kl"].get("mean")), ends(other_text["kl"])))
    text, level = quality["text"], confidence_level(results)
    windows, length, tokens = (
        numbers.count(text.get(key)) for key in ("windows", "length", "tokens")
    )
    name = text.get("name") or "The text"
    note = f"{name}: {windows} windows of {length} tokens, {tokens} in all."
    columns = [
        Column("Measure"),
        Column("Value", align="right"),
        Column(f"{level} interval", align="right"),
    ]
    return Table("", columns, rows, note, sortable=False)


def _protocol(results: Mapping[str, Any]) -> Text:
    """How quality was measured, and which measurements are missing."""
    quality = results["quality"]
    text, num_resamples = quality["text"], quality.get("resamples")
    protocol = (
        "windows do not overlap; the first token of each is context only; "
        "logits compared in float32"
    )
    facts = [
        ("Protocol", protocol),
        ("BOS added", yes_no(text.get("bos"))),
        ("First token ids", " ".join(map(str, text["first_ids"]))),
    ]
    if numbers.is_number(num_resamples):
        facts.append(("Bootstrap", f"{numbers.count(num_resamples)} resamples of windows"))
    if numbers.is_number(text.get("windows")) and text["windows"] < MIN_WINDOWS:
        caution = "fewer than eight windows: the intervals are too narrow to be trusted"
        facts.append(("Caution", caution))
    facts.append(("Not measured here", ", ".join(missing_measurements(results))))
    return Text("", facts=[(name, value) for name, value in facts if value])
