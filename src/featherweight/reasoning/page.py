"""The page of a training for length: what answers cost, whether they are still right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..evaluation.adaptivity import by_difficulty, length_slope
from ..evaluation.paired_arms import ArmDifference, compare_arms
from ..evaluation.reasoning_length import accuracy_at_budgets
from ..evaluation.tradeoff import aes
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
MOMENTS = (("before", "Before"), ("after", "After"))
NUM_BUDGETS = 24
CAUTION = (
    "The chain of thought of this model was trained for length. A text that was shaped by a reward "
    "may say less about how the answer came about than one that was not."
)


def reasoning_page(results: Record) -> str:
    """The page as HTML text. results: the content of results.json."""
    name = str(results["model"]["name"])
    difference = compare_moments(results)
    chapters = [
        _trade_chapter(results, difference),
        _difficulty_chapter(results),
        _learning_chapter(results),
        _samples_chapter(results),
        _effort_chapter(results),
    ]
    return render(
        f"{name}, shorter",
        verdict(results, difference),
        [chapter for chapter in chapters if chapter is not None],
        subtitle=f"{results['task']['name']}, {results['settings']['reward']}",
        figures=_key_figures(results, difference),
        window_title=f"{name}: length of thought",
    )


def verdict(results: Record, difference: ArmDifference) -> str:
    """The outcome in two sentences."""
    accuracies = [numbers.percent(accuracy(results[moment])) for moment, _ in MOMENTS]
    tokens = [numbers.number(thinking_tokens(results[moment])) for moment, _ in MOMENTS]
    ends = numbers.interval_ends(difference.accuracy.as_dict(), as_percent=True)
    text = (
        f"Thinking took {tokens[1]} tokens an answer instead of {tokens[0]}, and {accuracies[1]} "
        f"of the answers were right instead of {accuracies[0]} (difference {ends})."
    )
    if results["collapsed_at"] is not None:
        text += (
            f" The accuracy collapsed at step {results['collapsed_at']}, so these are the weights "
            f"of step {results['best']}."
        )
    return text


def outcome(results: Record) -> str:
    """The verdict, for the shell."""
    return verdict(results, compare_moments(results))


def card(results: Record) -> str:
    """README.md of the model's folder."""
    name, settings = results["model"]["name"], results["settings"]
    return (
        f"# {name}, trained for shorter thought\n\n{outcome(results)}\n\n"
        f"Trained with `fw shorten` on the task {results['task']['name']}, "
        f"reward {settings['reward']}, {settings['recipe']['steps']} steps. {CAUTION}\n\n"
        "Figures, their intervals and samples: `report.html`, `results.json`.\n"
    )


def accuracy(record: Record) -> float:
    """The share of right answers among those with a mark."""
    return float(np.nanmean(_arrays(record)[0]))


def thinking_tokens(record: Record) -> float:
    """Thinking tokens an answer."""
    return float(np.mean(record["lengths"]))


def _arrays(record: Record) -> tuple[np.ndarray, np.ndarray]:
    correct = np.array([np.nan if c is None else c for c in record["correct"]], dtype=np.float64)
    return correct, np.array(record["lengths"], dtype=np.float64)


def compare_moments(results: Record) -> ArmDifference:
    """After less before, paired by question."""
    correct, lengths = (x[None, :, None] for x in _arrays(results["after"]))
    base_correct, base_lengths = (x[None, :, None] for x in _arrays(results["before"]))
    return compare_arms(correct, lengths, base_correct, base_lengths)


def _key_figures(results: Record, difference: ArmDifference) -> list[KeyFigure]:
    first, last = results["before"], results["after"]
    score = aes(accuracy(last), thinking_tokens(last), accuracy(first), thinking_tokens(first))
    ((name, number),) = score.items()
    saving = difference.token_saving
    return [
        KeyFigure(
            "Thinking tokens",
            numbers.number(thinking_tokens(last)),
            note=f"was {numbers.number(thinking_tokens(first))}",
        ),
        KeyFigure(
            "Saved",
            numbers.percent(saving.mean),
            note=numbers.interval_ends(saving.as_dict(), as_percent=True),
        ),
        KeyFigure(
            "Right answers",
            numbers.percent(accuracy(last)),
            note=f"was {numbers.percent(accuracy(first))}",
        ),
        KeyFigure(
            name.upper().replace("AES", "AES "),
            numbers.number(number),
            note="weights of tokens, gains and losses",
        ),
    ]


def _trade_chapter(results: Record, difference: ArmDifference) -> Chapter:
    """Accuracy within a budget of tokens, and the paired differences."""
    longest = max(max(results[moment]["lengths"]) for moment, _ in MOMENTS)
    budgets = np.unique(np.linspace(1, longest, NUM_BUDGETS).round())
    lines = []
    for moment, label in MOMENTS:
        correct, lengths = _arrays(results[moment])
        curve = accuracy_at_budgets(correct, lengths, budgets)
        lines.append(Line(label, budgets.tolist(), list(map(float, curve))))
    curve_section = Curve(
        "Right answers within a budget",
        lines,
        Axis("Thinking tokens", COUNT),
        Axis("Right", SHARE),
        "An answer counts when it is right and its thought is no longer than the budget.",
    )
    rows = [
        ["Right answers, share", *_ends(difference.accuracy)],
        ["Thinking tokens an answer", *_ends(difference.tokens)],
    ]
    columns = [Column("After less before"), Column("Mean", NUMBER), Column("95 %", align="right")]
    table = Table("Differences, paired by question", columns, rows)
    note = f"{difference.num_items} held-out questions, one answer each."
    return Chapter("What it cost", [curve_section, table], note)


def _ends(interval: Any) -> list[Any]:
    return [interval.mean, numbers.interval_ends(interval.as_dict())]


def _difficulty_chapter(results: Record) -> Chapter | None:
    """Accuracy and length by difficulty."""
    difficulty = results["difficulty"]
    rows_with_level = [i for i, d in enumerate(difficulty) if d is not None]
    if len({difficulty[i] for i in rows_with_level}) < 2:
        return None
    columns = [Column("Difficulty", COUNT), Column("Questions", COUNT)]
    tables, slopes = [], []
    levels = np.array([difficulty[i] for i in rows_with_level], dtype=np.float64)
    for moment, label in MOMENTS:
        columns += [Column(f"Right, {label.lower()}", SHARE), Column("Tokens", NUMBER)]
        correct, lengths = (array[rows_with_level][:, None] for array in _arrays(results[moment]))
        tables.append(by_difficulty(correct, lengths, levels))
        if len(set(levels[np.nansum(correct, axis=1) > 0])) > 1:
            slope = length_slope(correct, lengths, levels)
            ends = numbers.interval_ends(slope.as_dict())
            slopes.append((f"{label}: tokens a step of difficulty", f"{slope.mean:.2f} ({ends})"))
    rows = [
        [
            int(level),
            tables[0][level]["items"],
            *(table[level][key] for table in tables for key in ("accuracy", "tokens_correct")),
        ]
        for level in sorted(tables[0])
    ]
    note = "Tokens of right answers. A model that adapts thinks longer about harder questions."
    sections: list[Section] = [Table("", columns, rows, full_width=True)]
    if slopes:
        sections.append(Text("Slope", facts=slopes))
    return Chapter("By difficulty", sections, note)


def _learning_chapter(results: Record) -> Chapter:
    training = results["training"]
    sections: list[Section] = []
    for key, label, unit in (("accuracy", "Right answers", SHARE), ("length", "Tokens", NUMBER)):
        lines = [
            Line(name, [row["step"] for row in rows], [row[key] for row in rows])
            for name, rows in (
                ("training questions", training["answers"]),
                ("held-out questions", training["held_out"]),
            )
            if rows
        ]
        if lines:
            axes = Axis("Step", COUNT), Axis(label, unit)
            sections.append(Curve(label, lines, *axes, half_width=True))
    return Chapter("Learning", sections)


def _samples_chapter(results: Record) -> Chapter:
    pairs = zip(*(results[moment]["samples"] for moment, _ in MOMENTS), strict=True)
    samples = [
        Sample(
            str(pair[0]["question"]),
            [
                f"{entry['answer']}\n({entry['tokens']} tokens, "
                f"{'right' if entry['correct'] else 'wrong'})"
                for entry in pair
            ],
        )
        for pair in pairs
    ]
    note = "One sample at the temperature of the training, untouched."
    return Chapter("What it says", [Samples("", [name for _, name in MOMENTS], samples)], note)


def _effort_chapter(results: Record) -> Chapter:
    """Time, settings, and what to keep in mind."""
    seconds = [list(entry) for entry in results["seconds"].items()]
    times = Table("Time", [Column("Stage"), Column("Seconds", SECONDS)], seconds)
    settings = results["settings"]
    facts = [("control", str(results["control"]))]
    facts += [(key, str(entry)) for key, entry in settings["recipe"].items()]
    facts += [(f"at the start: {key}", f"{entry:.3g}") for key, entry in results["start"].items()]
    return Chapter("What it took", [times, Text("Settings", facts=facts)], CAUTION)
