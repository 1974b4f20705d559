"""The page of a distillation: what the student lost, what it recovered, and what that took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..reporting import (
    COUNT,
    NUMBER,
    SECONDS,
    SHARE,
    Axis,
    Chapter,
    Column,
    Curve,
    KeyFigure,
    Line,
    Sample,
    Samples,
    Section,
    Table,
    Text,
    numbers,
    render,
)

Record = Mapping[str, Any]
METHODS = {
    "offline": "from the teacher's answers on disk",
    "on-policy": "on its own text, judged by the teacher",
    "policy-gradient": "on its own text, paid by the teacher",
    "sequence": "from texts that the teacher wrote",
    "across tokenizers": "across tokenizers, beside the teacher",
}
MEAN_STEPS = 20  # steps of the running mean of a loss


def distillation_page(results: Record) -> str:
    """The page as HTML text. results: the content of results.json."""
    name = str(results["teacher"]["name"])
    chapters = [
        _learning_chapter(results),
        _agreement(results),
        _tasks(results),
        _samples(results),
        _effort(results),
    ]
    return render(
        f"A student of {name}",
        verdict(results),
        [chapter for chapter in chapters if chapter is not None],
        subtitle=f"{results['student']['made_from']}, {METHODS[results['method']]}",
        figures=_key_figures(results),
        window_title=f"{name}: distillation",
    )


def recovered_share(results: Record) -> float | None:
    """The share of the KL before training that is gone after it; None where there was none."""
    quality_before, quality_after = (
        results[moment]["quality"]["kl"]["mean"] for moment in ("before", "after")
    )
    return 1 - quality_after / quality_before if quality_before else None


def verdict(results: Record) -> str:
    """The result in two sentences."""
    teacher, student = results["teacher"], results["student"]
    share = student["num_parameters"] / teacher["num_parameters"]
    quality_after, quality_before = results["after"]["quality"], results["before"]["quality"]
    change = "fell" if quality_after["kl"]["mean"] < quality_before["kl"]["mean"] else "rose"
    ends = [numbers.number(quality["kl"]["mean"]) for quality in (quality_before, quality_after)]
    agreement, text = numbers.percent(quality_after["top1"]["mean"]), quality_after["text"]["name"]
    return (
        f"With {numbers.percent(share)} of the teacher's parameters, the student's KL from the "
        f"teacher {change} from {ends[0]} to {ends[1]} nats. It has the teacher's most likely "
        f"token at {agreement} of the positions of {text}."
    )


def _key_figures(results: Record) -> list[KeyFigure]:
    quality_before, quality_after = results["before"]["quality"], results["after"]["quality"]
    teacher, student = results["teacher"], results["student"]
    was = numbers.number(quality_before["kl"]["mean"])
    share = recovered_share(results)
    rows = results["training"]["steps"]
    tokens = rows[-1]["units_seen"] if rows else 0
    perplexity = [q["light"]["perplexity"]["mean"] for q in (quality_before, quality_after)]
    original = quality_after["original"]["perplexity"]["mean"]
    return [
        KeyFigure(
            "KL from the teacher",
            numbers.number(quality_after["kl"]["mean"]),
            "nats",
            f"was {was}, {numbers.interval_ends(quality_after['kl'])}",
        ),
        KeyFigure("Recovered", "" if share is None else numbers.percent(share), note="of the KL"),
        KeyFigure(
            "Perplexity",
            numbers.number(perplexity[1]),
            note=f"was {numbers.number(perplexity[0])}, teacher {numbers.number(original)}",
        ),
        KeyFigure(
            "Parameters",
            numbers.count(student["num_parameters"]),
            note=f"teacher {numbers.count(teacher['num_parameters'])}",
        ),
        KeyFigure("Tokens learned from", numbers.count(round(tokens))),
    ]


def _learning_chapter(results: Record) -> Chapter:
    training = results["training"]
    sections: list[Section] = []
    for title, rows in (
        ("Loss", training["steps"]),
        ("Loss of the teacher's correction", training["correction"]),
    ):
        if rows:
            sections.append(_losses(title, rows))
    points = training["held_out"]
    if points:
        steps = [point["step"] for point in points]
        for key, label, unit in (("kl", "KL", NUMBER), ("top1", "Same most likely token", SHARE)):
            line = Line("", steps, [point[key] for point in points])
            title = f"{label} on held-out text"
            axes = Axis("Step", COUNT), Axis(label, unit)
            sections.append(Curve(title, [line], *axes, half_width=True))
    return Chapter("Learning", sections)


def _losses(title: str, rows: Sequence[Record]) -> Curve:
    """The loss of every step, and its running mean."""
    losses = [row["loss"] for row in rows]
    steps = [row["step"] for row in rows]
    lines = [Line("each step", steps, losses)]
    if len(losses) > 2 * MEAN_STEPS:
        lines.append(Line(f"mean of {MEAN_STEPS} steps", steps, _running_mean(losses)))
    note = "Nats a token. Steps that were not finite changed nothing and have no point."
    return Curve(title, lines, Axis("Step", COUNT), Axis("Loss", NUMBER), note)


def _running_mean(losses: Sequence[float | None]) -> list[float | None]:
    means: list[float | None] = []
    for end in range(1, len(losses) + 1):
        window = [x for x in losses[max(0, end - MEAN_STEPS) : end] if x is not None]
        means.append(sum(window) / len(window) if window else None)
    return means


def _agreement(results: Record) -> Chapter:
    columns = [
        Column("Model"),
        Column("KL, mean", NUMBER),
        Column("interval", align="right"),
        Column("median", NUMBER),
        Column("99th percentile", NUMBER),
        Column("Same most likely token", SHARE),
        Column("Perplexity", NUMBER),
    ]
    quality_after = results["after"]["quality"]
    rows: list[list[Any]] = [
        ["Teacher", 0.0, "", 0.0, 0.0, 1.0, quality_after["original"]["perplexity"]["mean"]]
    ]
    for name, moment in (("Student before", "before"), ("Student after", "after")):
        quality = results[moment]["quality"]
        kl = quality["kl"]
        rows.append(
            [
                name,
                kl["mean"],
                numbers.interval_ends(kl),
                kl["median"],
                kl["p99"],
                quality["top1"]["mean"],
                quality["light"]["perplexity"]["mean"],
            ]
        )
    text = quality_after["text"]
    note = (
        f"{text['windows']} windows of {text['length']} tokens of {text['name']}, which nobody "
        "learned from. KL in nats, with all logits of the teacher; 95 % intervals resample windows."
    )
    return Chapter("Agreement", [Table("", columns, rows, full_width=True)], note)


def _tasks(results: Record) -> Chapter | None:
    """Accuracies before and after, beside the teacher's."""
    moments = ("teacher", "before", "after")
    if not results["after"]["tasks"]:
        return None
    columns = [Column("Task"), Column("Examples", COUNT)]
    columns += [Column(name, align="right") for name in ("Teacher", "Before", "After")]
    rows: list[list[Any]] = []
    for entries in zip(*(results[moment]["tasks"] for moment in moments), strict=True):
        cells = [_accuracy(entry["metrics"]) for entry in entries]
        rows.append([entries[0]["name"], entries[0]["items"], *cells])
    note = "With 95 % intervals over examples."
    return Chapter("Tasks", [Table("", columns, rows, full_width=True)], note)


def _accuracy(metrics: Mapping[str, Any]) -> str:
    interval = metrics.get("acc_norm") or metrics.get("acc") or {}
    mean = interval.get("mean")
    if mean is None:
        return ""
    return f"{numbers.percent(mean)} ({numbers.interval_ends(interval, as_percent=True)})"


def _samples(results: Record) -> Chapter | None:
    moments = ("teacher", "before", "after")
    answers = [results[moment]["samples"] for moment in moments]
    samples = [
        Sample(entries[0]["question"], [entry["answer"].strip() for entry in entries])
        for entries in zip(*answers, strict=True)
    ]
    if not samples:
        return None
    names = ["Teacher", "Student before", "Student after"]
    note = "Greedy answers, untouched. An anecdote beside the figures above, not a measure."
    return Chapter("What they say", [Samples("", names, samples)], note)


def _effort(results: Record) -> Chapter:
    """Tokens, time, and what was told."""
    rows, settings = results["training"]["steps"], results["settings"]
    speeds = [row["units_per_second"] for row in rows if math.isfinite(row["units_per_second"])]
    facts = [
        ("Steps", f"{len(rows):,}"),
        ("Tokens learned from", f"{rows[-1]['units_seen']:,.0f}" if rows else "0"),
        (
            "Tokens/s, median step",
            numbers.number(sorted(speeds)[len(speeds) // 2]) if speeds else "",
        ),
        ("Steps that were not finite", f"{rows[-1]['num_skipped']:.0f}" if rows else "0"),
        ("Text", _text_facts(results["text"])),
        *((key, str(entry)) for key, entry in results["written"].items()),
        *((key, str(entry)) for key, entry in settings["recipe"].items()),
    ]
    seconds = results["seconds"].items()
    times = Table("Time", [Column("Stage"), Column("Seconds", SECONDS)], [list(s) for s in seconds])
    return Chapter("What it took", [times, Text("Settings", facts=facts)])


def _text_facts(text: Record) -> str:
    names = ", ".join(str(source["name"]) for source in text["sources"])
    return f"{text['sequences']:,} windows of {text['length']:,} tokens: {names}"
