"""The page of a quantized model as sections of `reporting`, and the figures at its head.

- Bits per weight (`storage`): three figures, counted from what is stored.
- What it cost (`cost`): KL, perplexity and agreement with their intervals, and the protocol.
- Tasks (`task_chapters`): accuracies with their intervals, and how the prompts were written.
- Free answers (`free_running`): loops and other faults, beside the original's.
- The same question to both: answers of the original and of the light model.
- Where the bytes are (`storage`): the weight files before and after, and their content.
- Which layers are to blame (`blame`): every layer's error and every block's KL.
- Calibration, and how it was made (`origin`): what is needed to make the same weights again.

Each `describe` function takes the return value of `tidy` and returns None when the results hold
nothing for its chapter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ...reporting import Chapter, KeyFigure, Sample, Samples, Section, numbers
from .blame import describe_blame
from .cost import describe_cost
from .free_running import describe_free_running
from .origin import describe_calibration, describe_origin
from .results import confidence_level, number_at, tidy
from .size_chapters import describe_bits, describe_bytes
from .sizes import original_sizes
from .task_chapters import describe_tasks


def sections(results: Mapping[str, Any]) -> list[Section | Chapter]:
    """The chapters of the page for `results` (the content of results.json), in order."""
    results = tidy(results)
    chapters = [describe(results) for describe in CHAPTERS]
    return [chapter for chapter in chapters if chapter is not None]


def key_figures(results: Mapping[str, Any]) -> list[KeyFigure]:
    """The figures at the head of the page: size, KL, perplexity and agreement, as far as they were
    measured.
    """
    size, quality = results["size"], results["quality"]
    kl, top1, perplexity = quality["kl"], quality["top1"], quality["light"]["perplexity"]
    level = confidence_level(results)
    figures = []
    if numbers.is_number(size.get("file_bytes")):
        note = _comparison(results, float(size["file_bytes"]))
        figures.append(KeyFigure("Weight files", numbers.size(size["file_bytes"]), note=note))
    if numbers.is_number(kl.get("mean")):
        ends = numbers.interval_ends(kl)
        note = f"{level}: {ends}" if numbers.is_number(kl.get("low")) else "no interval: one window"
        figures.append(KeyFigure("KL from the original", numbers.number(kl["mean"]), "nats", note))
    if numbers.is_number(perplexity.get("mean")):
        original = number_at(quality["original"]["perplexity"], "mean")
        ratio = number_at(quality["perplexity_ratio"], "mean")
        words = [] if original is None else [f"was {numbers.decimal(original, 2)}"]
        words += [] if ratio is None else [f"{100 * (ratio - 1):+.1f} %"]
        value = numbers.decimal(perplexity["mean"], 2)
        figures.append(KeyFigure("Perplexity", value, note=", ".join(words)))
    if numbers.is_number(top1.get("mean")):
        ends = numbers.interval_ends(top1, as_percent=True)
        note = f"{level}: {ends}" if numbers.is_number(top1.get("low")) else ""
        agreement = numbers.percent(top1["mean"])
        figures.append(KeyFigure("Same most likely token", agreement, note=note))
    return figures


def _comparison(results: Mapping[str, Any], file_bytes: float) -> str:
    """The sizes of the original as text, and how many times smaller the light model is than the
    first of them.
    """
    notes: list[str] = []
    for size in original_sizes(results):
        if notes:
            words = [size.label, numbers.size(size.num_bytes)]
        else:
            label = size.label if size.label == "as published" else ""
            words = ["was", numbers.size(size.num_bytes), label]
        words += [f"in {size.dtype}"] if size.dtype else []
        words += [f"at {size.bits_text}"] if size.bits_text else []
        text = " ".join(filter(None, words))
        if not notes and file_bytes:
            text += f", {numbers.number(size.num_bytes / file_bytes, 2)}× smaller"
        notes.append(text)
    return "; ".join(notes)


def describe_answers(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter with answers of the original and the light model to the same question."""
    samples = [
        Sample(
            str(sample.get("question") or ""),
            [str(sample.get(model) or "").strip() for model in ("original", "light")],
        )
        for sample in results["samples"]
    ]
    if not samples:
        return None
    note = "Greedy answers, untouched. An anecdote beside the figures above, not a measure."
    answers = Samples("", ["Original", "Light"], samples)
    return Chapter("The same question to both", [answers], note)


CHAPTERS: tuple[Callable[[Mapping[str, Any]], Chapter | None], ...] = (
    describe_bits,
    describe_cost,
    describe_tasks,
    describe_free_running,
    describe_answers,
    describe_bytes,
    describe_blame,
    describe_calibration,
    describe_origin,
)
