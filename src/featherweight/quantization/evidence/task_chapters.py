"""Tasks as a chapter of a model's page, and as a page of their own: accuracies with their
intervals, and how the prompts were written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...reporting import COUNT, SHARE, Bar, Bars, Chapter, Column, Section, Table, Text, numbers
from ...reporting import render as render_page
from .results import mapping_at, number_at, tidy, yes_no

# Above this share of ungraded answers the page warns.
UNGRADED_SHARE = 0.02


def describe_tasks(results: Mapping[str, Any]) -> Chapter | None:
    """The chapter on tasks; None when there were none."""
    tasks = results["tasks"]
    if not tasks:
        return None
    note = (
        "Tasks are read from local files and follow lm-evaluation-harness. Intervals resample "
        "examples. An answer that could not be graded is counted apart, neither right nor wrong."
    )
    sections: list[Section] = [_accuracies(tasks), _table(tasks)]
    return Chapter("Tasks", [*sections, *(describe_prompts(task) for task in tasks)], note)


def task_page(results: Mapping[str, Any]) -> str:
    """The page of an evaluation on tasks as HTML text."""
    tidy_results = tidy(results)
    chapter = describe_tasks(tidy_results)
    name = str(tidy_results["model"].get("name") or "Model")
    names = ", ".join(str(task.get("name")) for task in tidy_results["tasks"])
    return render_page(
        name,
        f"Answers to {names}.",
        [] if chapter is None else [chapter],
        subtitle=str(mapping_at(results, "engine").get("description") or ""),
        window_title=f"{name}: tasks",
    )


def _accuracies(tasks: list[Mapping[str, Any]]) -> Bars:
    bars = []
    for task in tasks:
        accuracy = task["metrics"]["acc"]
        mean, low, high = (number_at(accuracy, key) for key in ("mean", "low", "high"))
        bars.append(Bar(str(task.get("name")), mean, low, high))
    return Bars("Accuracy", bars, SHARE, "Task", interval_name=f"{_level(tasks[0])} interval")


def _table(tasks: list[Mapping[str, Any]]) -> Table:
    columns = [
        Column("Task", code=True),
        Column("Examples", COUNT),
        Column("Accuracy", align="right"),
        Column("Accuracy,\nper character", align="right"),
        Column("Perplexity", align="right"),
        Column("Tokens of\nan answer", align="right"),
        Column("Cut", COUNT),
        Column("Ungraded", COUNT),
    ]
    rows = []
    for task in tasks:
        metrics = task["metrics"]
        mean_tokens = number_at(task, "mean_tokens")
        rows.append(
            [
                str(task.get("name")),
                number_at(task, "items"),
                *(_interval(metrics[name], as_percent=True) for name in ("acc", "acc_norm")),
                _interval(metrics["perplexity"]),
                "" if mean_tokens is None else numbers.decimal(mean_tokens, 1),
                number_at(task, "cut_answers"),
                number_at(task, "ungraded"),
            ]
        )
    note = (
        "Choices are compared by their log-likelihoods, per character after dividing them by the "
        "length of the choice. Perplexity is that of the continuation as a whole. Cut answers "
        "reached the largest number of tokens."
    )
    return Table("All scores", columns, rows, note, full_width=True)


def _interval(interval: Mapping[str, Any], as_percent: bool = False) -> str:
    mean = number_at(interval, "mean")
    if mean is None:
        return ""
    text = numbers.percent(mean) if as_percent else numbers.number(mean)
    if number_at(interval, "low") is None or number_at(interval, "high") is None:
        return text
    return f"{text} ({numbers.interval_ends(interval, as_percent=as_percent)})"


def describe_prompts(task: Mapping[str, Any]) -> Text:
    """How the prompts of a task were written, with the first of them."""
    settings = mapping_at(task, "settings")
    facts = [
        ("File", ", ".join(map(str, mapping_at(task, "files").values())) or "made by the task"),
        ("Settings", ", ".join(f"{name}={value}" for name, value in settings.items()) or "none"),
        ("Chat template", str(task.get("chat_template") or yes_no(bool(task.get("chat"))))),
        ("Tokens before every text", ", ".join(map(str, task["bos"])) or "none"),
        ("First ids", " ".join(map(str, task["first_ids"][:32]))),
    ]
    truncated, ungraded = number_at(task, "truncated"), number_at(task, "ungraded")
    items = number_at(task, "items") or 1
    warnings = []
    if truncated:
        warnings.append(f"{truncated:.0f} prompts did not fit the context and lost their beginning")
    if ungraded and ungraded / items > UNGRADED_SHARE:
        reasons = ", ".join(mapping_at(task, "ungraded_reasons"))
        warnings.append(f"{task.get('name')}: {ungraded:.0f} answers are ungraded ({reasons})")
    prompt = str(task.get("first_prompt") or "")
    return Text(f"{task.get('name')}: its prompts", facts=facts, code=prompt, warnings=warnings)


def _level(task: Mapping[str, Any]) -> str:
    level = number_at(task, "level")
    return "bootstrap" if level is None else numbers.percent(level, 0)
