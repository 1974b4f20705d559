"""`evaluate --tasks`: its options, and its table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import UsageError
from .progress import progress

if TYPE_CHECKING:
    from rich.table import Table

PANEL = "Tasks"
Tasks = Annotated[
    str | None,
    typer.Option(
        metavar="A,B=FILE,...",
        help="Answer tasks instead of reading text: arc_easy, arc_challenge, boolq, piqa, "
        "openbookqa, commonsense_qa, copa, lambada, gsm8k, ifeval, humaneval, op_chain, "
        "arithmetic, reasoning_gym (extra reasoning-gym).",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Harness = Annotated[
    str | None,
    typer.Option(
        metavar="A,B,...",
        help="Let lm-evaluation-harness judge its own tasks, offline (extra eval); --task-data may "
        "name a folder of YAML files.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TaskData = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Where the tasks' files are, TASK.jsonl or TASK.jsonl.gz; nothing is downloaded.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
Items = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Only the first N examples of each task.",
        min=1,
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TaskChat = Annotated[
    bool | None,
    typer.Option(
        "--chat/--raw",
        help="Prompts through the chat template, or as they are (the default, but for ifeval).",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
TaskFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for figures, page and every example's row; one in evaluations/ by default.",
        rich_help_panel=PANEL,
        show_default=False,
    ),
]
FreshTasks = Annotated[
    bool,
    typer.Option(
        "--fresh", help="Forget an unfinished evaluation of tasks.", rich_help_panel=PANEL
    ),
]
OverwriteTasks = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace a finished one.", rich_help_panel=PANEL),
]


def refuse(settings: Mapping[str, Any], reason: str) -> None:
    """Raise UsageError when one of `settings`, by the names of the options, was given: it would
    change nothing.
    """
    for name, value in settings.items():
        if value is not None and value is not False and value != []:
            raise UsageError(f"--{name.replace('_', '-')} {reason}")


def evaluate_tasks(
    model: str, tasks: str | None, harness: str | None, as_json: bool, settings: dict[str, Any]
) -> None:
    """Run `evaluate --tasks`, or `evaluate --harness`, and print the figures; `settings` are those
    of the workflow.
    """
    if tasks is not None:
        refuse({"harness": harness}, "does not go with --tasks; evaluate them one after the other")
        evaluate_on_tasks(model, tasks, as_json, **settings)
        return
    refuse({"record": settings.pop("record")}, "does not go with --harness")
    evaluate_with_harness(model, str(harness), as_json, **settings)


def evaluate_with_harness(model: str, tasks: str, as_json: bool, **settings: Any) -> None:
    """Run `evaluate --harness` and print its figures; `settings` as in the workflow."""
    from ..workflows.evaluate_harness import evaluate_harness

    with progress() as listener:
        results, folder = evaluate_harness(model, tasks, listener=listener, **settings)
    if as_json:
        typer.echo(json.dumps({**results, "folder": str(folder)}, indent=1))
    else:
        from .tables import show

        show(harness_table(results), f"engine: {results['engine']['description']}")
        show(f"every example: {folder / 'samples'}")


def harness_table(results: Mapping[str, Any]) -> Table:
    """Every figure of the harness with its standard error."""
    from rich import box
    from rich.table import Table

    from .tables import number

    table = Table(box=box.SIMPLE_HEAD, title=results["model"]["name"], title_justify="left")
    for header in ("task", "metric", "figure", "standard error"):
        table.add_column(header, justify="left" if header in ("task", "metric") else "right")
    for task, figures in results["harness"]["results"].items():
        for name, value in figures.items():
            metric, comma, form = name.partition(",")
            if comma and not metric.endswith("_stderr"):
                error = figures.get(f"{metric}_stderr,{form}")
                title = metric if form == "none" else f"{metric}, {form}"
                table.add_row(task, title, number(value, 4), number(error, 4))
    return table


def evaluate_on_tasks(model: str, tasks: str, as_json: bool, **settings: Any) -> None:
    """Run `evaluate --tasks` and print its figures; `settings` as in the workflow."""
    from ..workflows.evaluate_tasks import evaluate_tasks

    with progress() as listener:
        results, folder = evaluate_tasks(model, tasks, listener=listener, **settings)
    if as_json:
        typer.echo(json.dumps({**results, "folder": str(folder)}, indent=1))
    else:
        from .tables import show

        show(tasks_table(results), *task_lines(results), f"every example: {folder / 'items'}")
        show(f"report: {folder / 'report.html'}")


def tasks_table(results: Mapping[str, Any]) -> Table:
    """The scores of each task with their intervals."""
    from rich import box
    from rich.table import Table

    from .tables import interval

    table = Table(box=box.SIMPLE_HEAD, title=results["model"]["name"], title_justify="left")
    headers = ("task", "examples", "acc", "acc_norm", "perplexity", "ungraded")
    for header in headers:
        table.add_column(header, justify="left" if header == "task" else "right")
    for task in results["tasks"]:
        metrics = task["metrics"]
        accuracies = [
            interval(metrics[name], 1, scale=100, unit=" %") if name in metrics else ""
            for name in ("acc", "acc_norm")
        ]
        perplexity = interval(metrics["perplexity"]) if "perplexity" in metrics else ""
        table.add_row(
            task["name"], str(task["items"]), *accuracies, perplexity, str(task["ungraded"])
        )
    return table


def task_lines(results: Mapping[str, Any]) -> list[str]:
    """How the prompts were written, and the ids of each task's first prompt."""
    lines = [f"engine: {results['engine']['description']}"]
    for task in results["tasks"]:
        form = f"chat template {task['chat_template']}" if task["chat"] else "plain text"
        bos = f", after {task['bos']}" if task["bos"] else ""
        ids = " ".join(map(str, task["first_ids"][:16]))
        lines.append(f"{task['name']}: {form}{bos}; first ids {ids} ...")
        for reason, count in task["ungraded_reasons"].items():
            lines.append(f"{task['name']}: {count} ungraded, {reason}")
    return lines
