"""`bench`: a command of its own file, with its table."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .progress import progress

if TYPE_CHECKING:
    from rich.table import Table


def bench(
    model: options.Model,
    threads: Annotated[
        int | None,
        typer.Option(
            help="Threads; all cores unless FEATHERWEIGHT_THREADS says less.", show_default=False
        ),
    ] = None,
    prompt: Annotated[int, typer.Option(help="Tokens of the prompt.", min=1)] = 512,
    tokens: Annotated[int, typer.Option(help="Tokens to decode.", min=1)] = 128,
    rounds: Annotated[
        int, typer.Option(help="How often everything is measured, in turns.", min=1)
    ] = 5,
    runtime: options.Runtime = "auto",
    against_llama: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.gguf",
            help="Let llama.cpp run this file in turns with ours.",
            show_default=False,
        ),
    ] = None,
    json_: options.Json = False,
) -> None:
    """Measure how fast MODEL runs here: tokens a second, first token, memory, share of the memory's
    bandwidth.
    """
    from ..workflows.bench_folder import bench_folder

    with progress() as listener:
        found = bench_folder(
            model,
            threads=threads,
            prompt=prompt,
            tokens=tokens,
            rounds=rounds,
            runtime=runtime,
            against_llama=against_llama,
            listener=listener,
        )
    if json_:
        typer.echo(json.dumps(found, indent=1))
    else:
        from .tables import show

        show(bench_table(found), *bench_lines(found))


def bench_table(found: Mapping[str, Any]) -> Table:
    """Our side, and llama.cpp's beside it when it was measured."""
    from rich import box
    from rich.table import Table

    from .tables import interval, megabytes

    theirs = found.get("llama")
    sides = [found, theirs] if theirs else [found]
    table = Table(box=box.SIMPLE_HEAD)
    for header in (
        "",
        found["model"]["name"],
        *([theirs["name"], "times as fast"] if theirs else []),
    ):
        table.add_column(header, justify="left" if not header else "right")
    ratios = theirs["ratio"] if theirs else {}
    for name, title, digits, unit in (
        ("decode", f"decode {found['tokens']}, tokens/s", 1, ""),
        ("prefill", f"prefill {found['prompt']}, tokens/s", 1, ""),
        ("first_token", f"first token of {found['prompt']}", 3, " s"),
    ):
        cells = [interval(side[name], digits, unit=unit) for side in sides]
        table.add_row(title, *cells, *([interval(ratios.get(name))] if theirs else []))
    sizes = [found["model"]["file_bytes"], *([theirs["file_bytes"]] if theirs else [])]
    table.add_row("file", *map(megabytes, sizes), *([""] if theirs else []))
    table.add_row(
        "memory taken",
        megabytes(found["memory_growth_bytes"] or None),
        *(["", ""] if theirs else []),
    )
    return table


def bench_lines(found: Mapping[str, Any]) -> list[str]:
    """What was measured, on what, and how much of the bandwidth decoding used."""
    machine, (before, after) = found["machine"], found["load"]
    lines = [f"engine     {found['model']['engine']}"]
    if "llama" in found:
        lines += [f"against    {found['llama']['description']}"]
    lines += [
        f"machine    {machine['cpu']}, {machine['cores']} cores, {found['threads']} threads, "
        f"load average {before:.2f} before and {after:.2f} after"
    ]
    bandwidth = found["bandwidth"]
    if bandwidth is not None:
        line = f"bandwidth  {bandwidth['bytes_per_second'] / 1e9:.1f} GB/s over {bandwidth['footprint'] / 1e6:.0f} MB"
        if "share" in bandwidth:
            line += f"; decoding reads {bandwidth['bytes_per_token'] / 1e6:.1f} MB a token, "
            line += f"{100 * bandwidth['share']:.0f} % of it"
            line += " (the weights fit the cache)" if bandwidth["fits_cache"] else ""
        lines.append(line)
    return lines
