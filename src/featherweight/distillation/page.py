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


def distance(results: Record) -> tuple[str, str]:
    """The entry of a student's quality that says how far it is from the teacher, and what a
    sentence calls it.
    """
    if "kl" in results["after"]["quality"]:
        return "kl", "KL from the teacher"
    return "exact", "divergence from the teacher"


def recovered_share(results: Record) -> float | None:
    """The share of the distance before training that is gone after it; None where there was
    none.
    """
    first, last = _distances(results)
    return 1 - last / first if first else None


def _capitalized(name: str) -> str:
    return name[0].upper() + name[1:]


def _distances(results: Record) -> list[float]:
    key, _ = distance(results)
    return [results[moment]["quality"][key]["mean"] for moment in ("before", "after")]


def verdict(results: Record) -> str:
    """The result in two sentences."""
    share = results["student"]["num_parameters"] / results["teacher"]["num_parameters"]
    first, last = _distances(results)
    name = distance(results)[1]
    change = "fell" if last < first else "rose"
    quality = results["after"]["quality"]
    text = quality["text"]["name"]
    if "top1" in quality:
        agreement = numbers.percent(quality["top1"]["mean"])
        outcome = (
            f"It has the teacher's most likely token at {agreement} of the positions of {text}."
        )
    else:
        outcome = f"It takes {numbers.number(quality['bits_per_byte'])} bits for a byte of {text}."
    return (
        f"With {numbers.percent(share)} of the teacher's parameters, the student's "
        f"{name} {change} from "
        f"{numbers.number(first)} to {numbers.number(last)} nats. {outcome}"
    )


def _key_figures(results: Record) -> list[KeyFigure]:
    quality = [results[moment]["quality"] for moment in ("before", "after")]
    key, name = distance(results)
    first, last = (numbers.number(number) for number in _distances(results))
    share, rows = recovered_share(results), results["training"]["steps"]
    ends = numbers.interval_ends(quality[1][key])
    figures = [
        KeyFigure(_capitalized(name), last, "nats", f"was {first}, now {ends}"),
        KeyFigure("Recovered", "" if share is None else numbers.percent(share), note="of it"),
    ]
    if "light" in quality[1]:
        first, last = (numbers.number(q["light"]["perplexity"]["mean"]) for q in quality)
        original = numbers.number(quality[1]["original"]["perplexity"]["mean"])
        figures.append(KeyFigure("Perplexity", last, note=f"was {first}, teacher {original}"))
    else:
        first, last = (numbers.number(q["bits_per_byte"]) for q in quality)
        figures.append(KeyFigure("Bits per byte", last, note=f"was {first}"))
    teacher, student = (numbers.count(results[m]["num_parameters"]) for m in ("teacher", "student"))
    tokens = rows[-1]["units_seen"] if rows else 0
    return [
        *figures,
        KeyFigure("Parameters", student, note=f"teacher {teacher}"),
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
        distance_key, name = distance(results)
        curves = (
            (distance_key, _capitalized(name), NUMBER),
            ("top1", "Same most likely token", SHARE),
        )
        for key, label, unit in curves:
            if key not in points[0]:
                continue
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
    """How far the student is from its teacher, before and after."""
    key, name = distance(results)
    columns = [
        Column("Model"),
        Column(f"{_capitalized(name)}, mean", NUMBER),
        Column("interval", align="right"),
        Column("median", NUMBER),
        Column("99th percentile", NUMBER),
    ]
    quality = results["after"]["quality"]
    is_kl = key == "kl"
    if is_kl:
        columns += [Column("Same most likely token", SHARE), Column("Perplexity", NUMBER)]
        original = quality["original"]["perplexity"]["mean"]
        rows: list[list[Any]] = [["Teacher", 0.0, "", 0.0, 0.0, 1.0, original]]
    else:
        columns += [Column("Unmatched tokens", NUMBER), Column("Text, nats a span", NUMBER)]
        columns += [Column("Bits per byte", NUMBER)]
        rows = []
    for model, moment in (("Student before", "before"), ("Student after", "after")):
        entry = results[moment]["quality"]
        measured = entry[key]
        cells = [model, measured["mean"], numbers.interval_ends(measured)]
        cells += [measured["median"], measured["p99"]]
        if is_kl:
            cells += [entry["top1"]["mean"], entry["light"]["perplexity"]["mean"]]
        else:
            cells += [entry["uld"]["mean"], entry["cross_entropy"]["mean"], entry["bits_per_byte"]]
        rows.append(cells)
    text = quality["text"]
    if is_kl:
        note = (
            f"{text['windows']} windows of {text['length']} tokens of {text['name']}, which nobody "
            "learned from. KL in nats, with all logits of the teacher."
        )
    else:
        note = (
            f"{text['windows']} windows of {text['name']}, which nobody learned from, as "
            f"{text['spans']:,} spans that both tokenizers divide. Jensen-Shannon divergence over "
            "the tokens that both have, in nats."
        )
    note += " 95 % intervals resample windows."
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
