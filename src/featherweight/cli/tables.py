"""The tables that the commands print: sizes and quality of a result, the plan, and the findings of
the doctor.

Figures come from results.json only; one that is missing there is shown as a dash. Intervals are
95 % intervals of the bootstrap.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .progress import clock

if TYPE_CHECKING:
    from rich.table import Table

    from ..quantization.evidence.sizes import OriginalSize
    from ..workflows.doctor import Finding

DASH = "–"


def show(*renderables: Any) -> None:
    """Print tables and lines on stdout: tables in the width of the terminal, lines unbroken."""
    from rich.console import Console

    console = Console(highlight=False)
    for renderable in renderables:
        if isinstance(renderable, str):
            console.print(renderable, markup=False, soft_wrap=True)
        else:
            console.print(renderable)


def results_table(results: Mapping[str, Any]) -> Table:
    """Size, bits, KL and perplexity of the original and the light model, from the content of
    results.json.

    The original's size is the published one; that of the source file has a line of its own where it
    is another.
    """
    from rich import box
    from rich.table import Table

    from ..quantization.evidence.sizes import original_sizes

    quality, size, model = (results.get(key) or {} for key in ("quality", "size", "model"))
    table = Table(box=box.SIMPLE_HEAD, title=model.get("name"), title_justify="left")
    for header in ("", "original", "light"):
        table.add_column(header, justify="left" if not header else "right")
    text = quality.get("text") or {}
    originals = original_sizes(results)
    original = originals[0] if originals else None
    size_rows = [
        (
            "weight files, original as published" if len(originals) > 1 else "weight files",
            DASH if original is None else _size_in_dtype(original),
            megabytes(size.get("file_bytes")),
        ),
        *((f"{other.label} of the original", _size_in_dtype(other), "") for other in originals[1:]),
        (
            "bpw_file, everything",
            number(original.bits if original else None, 2),
            number(size.get("bpw_file"), 3),
        ),
        ("bpw_layers, with scales", "", number(size.get("bpw_layers"), 3)),
        ("bpw_codes, codes only", "", number(size.get("bpw_codes"), 3)),
        ("bpw_codes, without tables", "", number(size.get("bpw_codes_blocks"), 3)),
    ]
    kl = quality.get("kl") or {}
    quality_rows = [
        (
            ", ".join(
                ["perplexity", *([text["name"]] if text.get("name") else [])]
                + (["with BOS"] if text.get("bos") else [])
            ),
            interval(_perplexity(quality, "original")),
            interval(_perplexity(quality, "light")),
        ),
        (
            ", ".join(["KL from the original, nats", *([kl["of"]] if kl.get("of") else [])]),
            number(quality.get("kl_self"), 4),
            interval(kl, 4),
        ),
        (
            "same most likely next token",
            "100 %",
            interval(quality.get("top1"), 1, scale=100, unit=" %"),
        ),
    ]
    for row in size_rows + (quality_rows if quality else []):
        table.add_row(*row)
    return table


def samples(results: Mapping[str, Any]) -> list[str]:
    """The questions that both models got, and the answers of each."""
    lines = []
    for sample in results.get("samples") or []:
        lines += [f"\nquestion  {sample['question']}"]
        lines += [f"original  {sample['original'].strip()}", f"light     {sample['light'].strip()}"]
    return lines


def plan_table(report: Any, every_layer: bool) -> Table:
    """The format of each layer: a line for each layer, or for each group of layers with the same
    pattern, format and shape.
    """
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for header in ("layers", "shape", "format", "pattern", "size"):
        table.add_column(header, justify="right" if header == "size" else "left")
    if every_layer:
        groups = [[line] for line in report.lines]
    else:
        keys = {id(line): (line.pattern, line.format, line.shape) for line in report.lines}
        sorted_lines = sorted(report.lines, key=lambda line: keys[id(line)])
        groups = [
            list(group) for _, group in groupby(sorted_lines, key=lambda line: keys[id(line)])
        ]
    for group in groups:
        line = group[0]
        name = line.name if len(group) == 1 else f"{len(group)} like {line.name}"
        shape = "x".join(map(str, line.shape))
        table.add_row(
            name, shape, line.format, line.pattern, megabytes(sum(line.bits for line in group) / 8)
        )
    return table


def plan_lines(report: Any) -> list[str]:
    """What the plan costs: bits, files, memory, disk and time."""
    lines = [
        f"bits per weight  {report.bpw_file:.3f} whole file, "
        f"{report.bpw_layers:.3f} quantized layers with scales, {report.bpw_codes:.3f} codes only",
        f"weight files     {megabytes(report.file_bytes)} ({_original_text(report)})",
        f"peak memory      {megabytes(report.peak_memory_bytes)}",
        f"disk             {megabytes(report.disk_bytes)}",
        f"time             {clock(report.seconds_low)} to {clock(report.seconds_high)}",
    ]
    return lines + [f"warning: {warning}" for warning in report.warnings]


def checks_table(checks: Iterable[Finding]) -> Table:
    """The findings of the doctor: what works, what is missing but optional, and what is broken,
    with advice.
    """
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_header=False)
    for check in checks:
        mark = (
            "[green]ok[/]"
            if check.ok
            else "[red]FAILED[/]"
            if check.essential
            else "[yellow]note[/]"
        )
        advice = f" [dim]({escape(check.advice)})[/]" if check.advice and not check.ok else ""
        table.add_row(mark, escape(check.name), escape(check.detail) + advice)
    return table


def number(value: float | None, digits: int) -> str:
    """A figure, or a dash where there is none."""
    return DASH if value is None else f"{value:.{digits}f}"


def interval(
    entry: Mapping[str, Any] | None, digits: int = 2, scale: float = 1, unit: str = ""
) -> str:
    """A mean with its interval, "18.27 [17.90, 18.65]"."""
    if not entry or entry.get("mean") is None:
        return DASH
    mean = f"{entry['mean'] * scale:.{digits}f}{unit}"
    if entry.get("low") is None or entry.get("high") is None:
        return mean
    return f"{mean} [{entry['low'] * scale:.{digits}f}, {entry['high'] * scale:.{digits}f}]"


def megabytes(num_bytes: float | None) -> str:
    """Bytes as "269.1 MB" or "14.5 GB" (powers of ten)."""
    if num_bytes is None:
        return DASH
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.1f} MB"


def _original_text(report: Any) -> str:
    """The sizes of a plan's original: "original as published 269.0 MB in bfloat16; source file
    538.1 MB".
    """
    from ..quantization.evidence.sizes import original_sizes

    names = ("source_file_bytes", "published_dtype", "published_bytes")
    originals = original_sizes({"model": {name: getattr(report, name) for name in names}})
    text = "; ".join(f"{original.label} {_size_in_dtype(original)}" for original in originals)
    return text if text.startswith("original") else f"original {text}"


def _size_in_dtype(original: OriginalSize) -> str:
    """ "269.0 MB in bfloat16", without the dtype where it is not known."""
    text = megabytes(original.num_bytes)
    return f"{text} in {original.dtype}" if original.dtype else text


def _perplexity(quality: Mapping[str, Any], model: str) -> Mapping[str, Any] | None:
    return (quality.get(model) or {}).get("perplexity")
