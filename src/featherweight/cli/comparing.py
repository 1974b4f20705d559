"""The command `compare`, with its table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import UsageError
from . import tasks as task_options
from .evaluation import Bos, Length, TextName
from .options import MODEL_HELP, Json, Runtime
from .progress import progress
from .tables import DASH

if TYPE_CHECKING:
    from rich.table import Table

Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        help=f"The original first, then light models. {MODEL_HELP}",
        show_default=False,
    ),
]
Against = Annotated[
    str | None,
    typer.Option(
        metavar="MODEL", help="The original, when it is not the first.", show_default=False
    ),
]
Windows = Annotated[int, typer.Option(help="How many windows of the text.", min=2)]
AnswersType = Annotated[
    str,
    typer.Option(
        metavar="float32|float16",
        help="Of the original's logits, which lie on the disk during the work: exact, or half as "
        "large.",
    ),
]
NoSpeed = Annotated[bool, typer.Option("--no-speed", help="Measure no speed.")]
SpeedTokens = Annotated[
    int | None,
    typer.Option(help="Tokens of prompt and of answer in a round (64).", min=1, show_default=False),
]
SpeedRounds = Annotated[
    int | None,
    typer.Option(
        help="How often each model has its turn to be timed (5).", min=1, show_default=False
    ),
]
OutFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FOLDER",
        help="Folder for figures and page; one in comparisons/ by default.",
        show_default=False,
    ),
]


def compare(
    models: Models,
    against: Against = None,
    out: OutFolder = None,
    text: TextName = None,
    windows: Windows = 16,
    length: Length = 1024,
    bos: Bos = "auto",
    answers_dtype: AnswersType = "float32",
    runtime: Runtime = "auto",
    no_speed: NoSpeed = False,
    speed_tokens: SpeedTokens = None,
    speed_rounds: SpeedRounds = None,
    tasks: task_options.Tasks = None,
    task_data: task_options.TaskData = None,
    items: task_options.Items = None,
    with_chat: task_options.TaskChat = None,
    from_start: Annotated[
        bool, typer.Option("--fresh", help="Forget an unfinished comparison.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a finished one.")] = False,
    json_: Json = False,
) -> None:
    """Compare models side by side: KL from the original, perplexity, tasks, size and speed.

    Differences that could be chance are called ties. Killed or interrupted, the same command
    continues where it stopped.
    """
    if tasks is None:
        task_settings = {"task-data": task_data, "items": items, "chat": with_chat}
        task_options.refuse(task_settings, "belongs to --tasks; name the tasks")
    from ..models.answers import Full
    from ..workflows.compare_folders import compare_folders
    from ..workflows.comparison import TaskSettings, TextSettings

    with progress() as listener:
        results, folder = compare_folders(
            models,
            against=against,
            text=TextSettings(text or TextSettings.name, windows, length, bos),
            tasks=TaskSettings(tasks, items, task_data, with_chat),
            speed=_speed(no_speed, speed_tokens, speed_rounds),
            answers=Full(answers_dtype),
            runtime=runtime,
            out=out,
            fresh=from_start,
            overwrite=overwrite,
            listener=listener,
        )
    if json_:
        typer.echo(json.dumps({**results, "folder": str(folder)}, indent=1))
    else:
        from .tables import show

        show(comparison_table(results), *tie_lines(results), f"report: {folder / 'report.html'}")


def _speed(no_speed: bool, tokens: int | None, rounds: int | None) -> Any:
    """How speed is measured, None for not at all. Raises UsageError for both."""
    from ..workflows.comparison import SpeedSettings

    if no_speed:
        if tokens is not None or rounds is not None:
            raise UsageError("--speed-tokens and --speed-rounds do not go with --no-speed")
        return None
    return SpeedSettings(tokens or SpeedSettings.tokens, rounds or SpeedSettings.rounds)


def comparison_table(results: Mapping[str, Any]) -> Table:
    """One column a model, the original first; the place stands behind every ranked figure."""
    from rich import box
    from rich.table import Table

    from .tables import megabytes, number

    text = results["text"]
    title = f"{text['name']}, {text['windows']} windows of {text['length']} tokens"
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for model in results["models"]:
        table.add_column(model["name"], justify="right", overflow="fold")
    rows: list[tuple[str, str, Callable[[Any], str]]] = [
        ("weight files", "", lambda m: megabytes(m["size"]["file_bytes"])),
        ("bits a weight", "", lambda m: number(m["size"]["bits"], 2)),
        ("KL, nats", "KL", lambda m: number(m["quality"]["kl"]["mean"], 4)),
        (_level(results), "", lambda m: _ends(m["quality"]["kl"], 3)),
        ("  median token", "", lambda m: number(m["quality"]["kl"]["median"], 4)),
        ("  99.9 % of tokens", "", lambda m: number(m["quality"]["kl"]["p999"], 3)),
        ("same next token", "top-1 agreement", lambda m: _percent(m["quality"]["top1"])),
        ("perplexity", "perplexity", lambda m: number(_perplexity(m)["mean"], 2)),
        (_level(results), "", lambda m: _ends(_perplexity(m), 1)),
    ]
    for index, task in enumerate(results["models"][0].get("tasks", ())):
        rows += [
            (task["name"], task["name"], partial(_accuracy, index)),
            (_level(results), "", partial(_accuracy_ends, index)),
        ]
    if results["speed"]:
        rows.append(
            (
                "tokens a second",
                "tokens a second",
                lambda m: number(m["speed"]["decode"]["mean"], 1),
            )
        )
    for label, measure, figure in rows:
        cells = [
            _with_place(results, measure, model["name"], figure(model))
            for model in results["models"]
        ]
        table.add_row(label, *cells)
    return table


def tie_lines(results: Mapping[str, Any]) -> list[str]:
    """Which models tie by which measure, in words."""
    lines = []
    for measure in results["measures"]:
        groups: dict[int, list[str]] = {}
        for place in measure["places"]:
            groups.setdefault(place["place"], []).append(place["model"])
        ties = [" and ".join(names) for names in groups.values() if len(names) > 1]
        lines += [f"tie by {measure['title']}: {names}" for names in ties]
    level = f"{100 * results['level']:.0f} %"
    note = f"in parentheses: places; a tie where the {level} interval of the difference contains 0"
    return [note, *lines]


def _with_place(results: Mapping[str, Any], title: str, name: str, figure: str) -> str:
    """ "0.0875 (1)", or "0.0875 (tie 1)"; the figure alone where the model has no place."""
    from ..quantization.evidence.places import place_text

    place = place_text(results, title, name)
    return f"{figure} ({place})" if place else figure


def _level(results: Mapping[str, Any]) -> str:
    return f"  {100 * results['level']:.0f} % interval"


def _percent(metric: Mapping[str, Any]) -> str:
    return DASH if metric["mean"] is None else f"{100 * metric['mean']:.1f} %"


def _ends(metric: Mapping[str, Any], digits: int, scale: float = 1) -> str:
    """The ends of an interval, "17.90-18.65"; a dash without them."""
    if metric["low"] is None or metric["high"] is None:
        return DASH
    return f"{scale * metric['low']:.{digits}f}-{scale * metric['high']:.{digits}f}"


def _perplexity(model: Mapping[str, Any]) -> Mapping[str, Any]:
    perplexity: Mapping[str, Any] = model["quality"]["light"]["perplexity"]
    return perplexity


def _accuracy(index: int, model: Mapping[str, Any]) -> str:
    return _percent(model["tasks"][index]["metrics"]["acc"])


def _accuracy_ends(index: int, model: Mapping[str, Any]) -> str:
    return _ends(model["tasks"][index]["metrics"]["acc"], 1, scale=100)
