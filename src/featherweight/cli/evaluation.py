"""The command `evaluate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from . import bounds as result_bounds
from .options import FailIf, Json, Model
from .progress import progress

Bos = Annotated[
    str,
    typer.Option(
        metavar="auto|yes|no",
        help="Whether each window starts with the BOS token; auto: where the tokenizer itself puts "
        "one before every text.",
    ),
]


def evaluate(
    model: Model,
    against: Annotated[
        str | None,
        typer.Option(
            help="The original, or a folder of its answers (fw teach), to measure the KL from it.",
            show_default=False,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(
            help="A text file, or the name of a text that comes with featherweight.",
            show_default=False,
        ),
    ] = None,
    windows: Annotated[int, typer.Option(help="How many windows of the text.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens in a window.", min=2)] = 1024,
    bos: Bos = "auto",
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="native|reference|reference-int8",
            help="Measure what this engine computes instead of the plain forward of PyTorch.",
            show_default=False,
        ),
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Write the figures into MODEL's page too; needs --against."),
    ] = False,
    fail_if: FailIf = None,
    json_: Json = False,
) -> None:
    """Measure perplexity, and with --against the KL from the original and how often both agree."""
    bounds = result_bounds.parse(fail_if or [])
    from ..workflows.evaluate_folder import evaluate_folder

    with progress() as listener:
        results = evaluate_folder(
            model,
            against=against,
            text=text,
            windows=windows,
            length=length,
            bos=bos,
            runtime=runtime,
            record=record,
            listener=listener,
        )
    if json_:
        typer.echo(json.dumps(results, indent=1))
    else:
        from .tables import results_table, show

        show(results_table(results))
    result_bounds.check(bounds, results)
