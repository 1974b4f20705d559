"""`bench`: a command in a file of its own, with its table."""

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
    """Measure how fast MODEL runs here: tokens a second, first token, memory, bandwidth share."""
    from ..workflows.bench_folder import bench_folder

    with progress() as listener:
        results = bench_folder(
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
        typer.echo(json.dumps(results, indent=1))
    else:
        from .tables import show

        show(bench_table(results), *bench_lines(results))


def bench_table(results: Mapping[str, Any]) -> Table:
    """Our figures, and in a second column llama.cpp's when it was measured."""
    from rich import box
    from rich.table import Table

    from .tables import interval, megabytes

    llama = results.get("llama")
    columns = [results, llama] if llama else [results]
    table = Table(box=box.SIMPLE_HEAD)
    for header in (
        "",
        results["model"]["name"],
        *([llama["name"], "times as fast"] if llama else []),
    ):
        table.add_column(header, justify="left" if not header else "right")
    ratios = llama["ratio"] if llama else {}
    for name, title, digits, unit in (
        ("decode", f"decode {results['tokens']}, tokens/s", 1, ""),
        ("prefill", f"prefill {results['prompt']}, tokens/s", 1, ""),
        ("first_token", f"first token of {results['prompt']}", 3, " s"),
    ):
        cells = [interval(column[name], digits, unit=unit) for column in columns]
        table.add_row(title, *cells, *([interval(ratios.get(name))] if llama else []))
    sizes = [results["model"]["file_bytes"], *([llama["file_bytes"]] if llama else [])]
    table.add_row("file", *map(megabytes, sizes), *([""] if llama else []))
    table.add_row(
        "memory taken",
        megabytes(results["memory_growth_bytes"] or None),
        *(["", ""] if llama else []),
    )
    return table


def bench_lines(results: Mapping[str, Any]) -> list[str]:
    """The lines under the table: engine, machine, and the share of the bandwidth that decoding
    used.
    """
    machine, (start_load, end_load) = results["machine"], results["load"]
    lines = [f"engine     {results['model']['engine']}"]
    if "llama" in results:
        lines += [f"against    {results['llama']['description']}"]
    lines += [
        f"machine    {machine['cpu']}, {machine['cores']} cores, {results['threads']} threads, "
        f"load average {start_load:.2f} before and {end_load:.2f} after"
    ]
    bandwidth = results["bandwidth"]
    if bandwidth is not None:
        rate, footprint = bandwidth["bytes_per_second"], bandwidth["footprint"]
        line = f"bandwidth  {rate / 1e9:.1f} GB/s over {footprint / 1e6:.0f} MB"
        if "share" in bandwidth:
            line += f"; decoding reads {bandwidth['bytes_per_token'] / 1e6:.1f} MB a token, "
            line += f"{100 * bandwidth['share']:.0f} % of it"
            line += " (the weights fit the cache)" if bandwidth["fits_cache"] else ""
        lines.append(line)
    return lines
