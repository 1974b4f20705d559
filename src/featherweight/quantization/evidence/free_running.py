"""The chapter on the free-running check, and the sentences about its flags."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import COUNT, Chapter, Column, Sample, Samples, Section, Table, Text, numbers
from .results import mapping_at, number_at

# The key of a fault -> its name in the table, and what a model with it does.
FAULTS = {
    "loops": ("Repetition loops", "repeats itself in a loop"),
    "endless": ("No end within the cap", "does not come to an end"),
    "empty": ("Empty answers", "answers nothing"),
    "form_breaks": ("Form breaks", "misses the form that was asked for"),
}
SHOWN_CHARACTERS = 300


def talk_warnings(results: Mapping[str, Any]) -> list[str]:
    """A sentence for each fault that the light model has more often than the original."""
    return [
        f"In free answers it {FAULTS[name][1]} on {numbers.percent(rate.get('light'))} of "
        f"{numbers.count(rate.get('prompts'))} prompts; the original on "
        f"{numbers.percent(rate.get('original'))}"
        for name, rate in _rates(results).items()
        if rate.get("flag") is True
    ]


def describe_free_running(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter with the rates of both models and the answers that differ most; None where
    nothing was asked.
    """
    entry = results["free_running"]
    if not _rates(results):
        return None
    note = (
        "KL and perplexity read a given text. Here both models answer the same prompts greedily, "
        "and read what they wrote themselves: a model can keep its likelihood and fail to talk. "
        "The original has faults too, so a fault is flagged when the interval of the difference, "
        "paired over the prompts, lies above zero."
    )
    samples = [
        Sample(
            _question(sample),
            [_beginning(str(sample.get(model) or "")) for model in ("original", "light")],
        )
        for sample in entry["samples"]
    ]
    sections: list[Section] = [_table(results), _protocol(results)]
    if samples:
        title = "Where the answers differ most"
        note_on_length = f"The first {SHOWN_CHARACTERS} characters; results.json has all."
        sections.append(Samples(title, ["Original", "Light"], samples, note_on_length))
    return Chapter("Free answers", sections, note)


def _rates(results: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The rates of the faults that were looked at, in the order of FAULTS."""
    rates = mapping_at(results, "free_running", "rates")
    return {name: rates[name] for name in FAULTS if isinstance(rates.get(name), Mapping)}


def _table(results: Mapping[str, Any]) -> Table:
    level = number_at(results["free_running"], "level")
    percent = "" if level is None else f"\n({numbers.percent(level, 2)} interval)"
    columns = [
        Column("Fault"),
        Column("Prompts", COUNT),
        Column("Original", align="right"),
        Column("Light", align="right"),
        Column(f"Difference{percent}", align="right"),
        Column("Flag"),
    ]
    rows = [
        [
            FAULTS[name][0],
            number_at(rate, "prompts"),
            numbers.percent(rate.get("original")),
            numbers.percent(rate.get("light")),
            f"{numbers.percent(mapping_at(rate, 'difference').get('mean'))} "
            f"({numbers.interval_ends(mapping_at(rate, 'difference'), as_percent=True)})",
            "flagged" if rate.get("flag") is True else "",
        ]
        for name, rate in _rates(results).items()
    ]
    note = (
        "A loop is an n-gram that is repeated to the end, or hardly any distinct 4-grams. Form is "
        "what a prompt asked for: a number, JSON, a list of so many lines."
    )
    return Table("", columns, rows, note, sortable=False)


def _protocol(results: Mapping[str, Any]) -> Text:
    entry = results["free_running"]
    kinds = ", ".join(
        f"{numbers.count(count)} {kind}" for kind, count in mapping_at(entry, "kinds").items()
    )
    tokens = mapping_at(entry, "mean_tokens")
    lengths = [f"{key} {numbers.decimal(tokens.get(key), 1)}" for key in ("original", "light")]
    has_forms = entry.get("forms_checked") is True
    engines = mapping_at(entry, "engines")
    facts = [
        ("Prompts", kinds),
        ("Longest answer", f"{numbers.count(entry.get('max_tokens'))} tokens"),
        ("Mean length in tokens", ", ".join(lengths)),
        ("Equal answers", numbers.percent(entry.get("equal_answers"))),
        (
            "Form",
            "checked"
            if has_forms
            else "not checked: the model has no chat template, so it continues the prompts as text",
        ),
        *((f"Engine, {key}", str(engine)) for key, engine in engines.items()),
    ]
    return Text("", facts=facts, warnings=talk_warnings(results))


def _beginning(text: str) -> str:
    """As much of an answer as a reader needs to see a loop."""
    text = text.strip()
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"


def _question(sample: Mapping[str, Any]) -> str:
    """The prompt, with the faults of both answers behind it."""
    lines = [str(sample.get("prompt") or "")]
    for model in ("original", "light"):
        faults = sample.get(f"{model}_faults")
        faults = faults if isinstance(faults, list) else []
        names = [name for key, (name, _) in FAULTS.items() if key in faults]
        lines += [f"[{model}: {', '.join(names).lower()}]"] if names else []
    return "\n".join(lines)
