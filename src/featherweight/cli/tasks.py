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
        "openbookqa, commonsense_qa, copa, lambada, gsm8k, ifeval, humaneval, op_chain.",
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


def check_settings(
    tasks: str | None, task_settings: Mapping[str, Any], text_settings: Mapping[str, Any]
) -> None:
    """Raise UsageError for settings that would change nothing: of texts with tasks, and of tasks
    without them. Names are those of the options.
    """
    useless_settings = task_settings if tasks is None else text_settings
    for name, value in useless_settings.items():
        if value is None or value is False or value == []:
            continue
        option = "--" + name.replace("_", "-")
        if tasks is None:
            raise UsageError(f"{option} belongs to --tasks; name the tasks")
        raise UsageError(f"{option} is about texts; evaluate --tasks apart from it")


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
