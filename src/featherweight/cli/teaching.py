"""The command `teach`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..base.errors import UsageError
from .evaluation import Bos
from .options import Json, Model
from .progress import progress

if TYPE_CHECKING:
    from ..models.answers import Kind


def teach(
    model: Model,
    text: Annotated[
        str,
        typer.Argument(help="A text file, or the name of a text that comes with featherweight."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the answers.")],
    top_k: Annotated[
        int | None,
        typer.Option(
            help="Keep so many tokens of each distribution, and the mass of the others (64).",
            show_default=False,
        ),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Keep all logits.")] = False,
    draws: Annotated[
        int | None,
        typer.Option(
            help="Keep so many drawn tokens; with --top-k, drawn from the others.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(metavar="float16|float32", help="Of the numbers.", show_default=False),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Of the distributions.")] = 1.0,
    windows: Annotated[
        int | None,
        typer.Option(help="How many windows of the text (all).", min=1, show_default=False),
    ] = None,
    length: Annotated[int, typer.Option(help="Tokens in a window.", min=2)] = 1024,
    bos: Bos = "auto",
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    json_: Json = False,
) -> None:
    """Let MODEL answer TEXT once and keep its answers: to distil from, or to measure KL against.

    Killed or interrupted, the same command continues where it stopped.
    """
    from ..workflows.teach_folder import teach_folder

    with progress() as listener:
        facts = teach_folder(
            model,
            text,
            out,
            kind_of(top_k, draws, full, dtype),
            windows=windows,
            length=length,
            bos=bos,
            temperature=temperature,
            seed=seed,
            listener=listener,
        )
    typer.echo(json.dumps(facts, indent=1) if json_ else summary(facts))


def kind_of(top_k: int | None, draws: int | None, is_full: bool, dtype: str | None) -> Kind:
    """What the options keep. Raises UsageError for --full beside another, or a dtype of ids."""
    from ..models.answers import Full, Sampled, TopK

    if is_full and (top_k is not None or draws is not None):
        raise UsageError("--full keeps everything: leave out --top-k and --draws")
    if draws is not None and top_k is None:
        if dtype is not None:
            raise UsageError("--dtype: drawn tokens are ids, not numbers")
        return Sampled(draws)
    top_k = 64 if top_k is None else top_k
    kind: Full | TopK = Full() if is_full else TopK(top_k, draws=draws or 0)
    return kind if dtype is None else replace(kind, dtype=dtype)


def summary(facts: Mapping[str, Any]) -> str:
    """Two lines: what was answered, and what it takes."""
    return (
        f"{facts['model']} answered {facts['tokens']:,} tokens of {facts['text']} "
        f"({facts['windows']} windows of {facts['length']}) in {facts['seconds']:.0f} s\n"
        f"{facts['folder']}: {facts['file_bytes'] / 1e6:.1f} MB, "
        f"{facts['bytes_per_token']:.0f} bytes a token"
    )
