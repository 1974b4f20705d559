"""`evaluate --free-running`: its options, and the table of faults that `quantize` prints too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .progress import progress

if TYPE_CHECKING:
    from rich.table import Table

PANEL = "Free running"
FreeRunning = Annotated[
    bool,
    typer.Option(
        "--free-running",
        help="Let MODEL and --against answer prompts greedily, and count loops, answers without "
        "end, empty answers and form breaks.",
        rich_help_panel=PANEL,
    ),
]
Prompts = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="How many prompts, at most 100 (100).", min=1, rich_help_panel=PANEL
    ),
]
AnswerTokens = Annotated[
    int | None,
    typer.Option(metavar="N", help="Longest answer (256 tokens).", min=1, rich_help_panel=PANEL),
]


def evaluate_freely(model: str, as_json: bool, settings: dict[str, Any]) -> dict[str, Any]:
    """Run `evaluate --free-running`, print its figures, and return them; `settings` are those of
    the workflow, None for its default.
    """
    from ..workflows.evaluate_free_running import evaluate_free_running

    options = {name: value for name, value in settings.items() if value is not None}
    with progress() as listener:
        results = evaluate_free_running(model, **options, listener=listener)
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        from .tables import show

        show(*free_running_report(results))
    return results


def free_running_report(results: Mapping[str, Any]) -> list[Any]:
    """The table of faults and a warning for each flag; nothing where no prompts were asked."""
    from ..quantization.evidence.free_running import talk_warnings

    entry = results.get("free_running")
    if not entry:
        return []
    seconds = entry["seconds"]
    source = " (cached)" if entry["original_cached"] else ""
    line = (
        f"answers of at most {entry['max_tokens']} tokens: {seconds['original']:.1f} s for the "
        f"original{source}, {seconds['light']:.1f} s for the light model"
    )
    notes = [] if entry["forms_checked"] else ["no chat template: the form was not checked"]
    return [
        _table(entry),
        line,
        *notes,
        *(f"warning: {warning}" for warning in talk_warnings(results)),
    ]


def _table(entry: Mapping[str, Any]) -> Table:
    from rich import box
    from rich.table import Table

    from ..quantization.evidence.free_running import FAULTS
    from .tables import interval, number

    table = Table(box=box.SIMPLE_HEAD, title="free answers", title_justify="left")
    for header in ("", "prompts", "original", "light", "difference, %", ""):
        table.add_column(header, justify="right" if header else "left")
    for name, rate in entry["rates"].items():
        table.add_row(
            FAULTS[name][0].lower(),
            str(rate["prompts"]),
            f"{number(100 * rate['original'], 0)} %",
            f"{number(100 * rate['light'], 0)} %",
            interval(rate["difference"], 1, scale=100),
            "flagged" if rate["flag"] else "",
        )
    return table
