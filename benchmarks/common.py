"""The common code of all benchmarks: flags, the record, alternating rounds, the table and the exit
code.

A benchmark is a module with a function `run(arguments) -> Record`, which it passes to `main`.
`--json FILE` writes the record (see `featherweight.base.records`) after every row, so that a killed
run keeps its rows; `--html FILE` writes it as a page. The exit code is 1 when a check failed.
`time_in_turns` alternates the rounds of the compared functions, so that another process that uses
the machine for a while slows all of them.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from featherweight.base.events import Event
from featherweight.base.records import Record, Row
from featherweight.reporting import record_page, write_page

Item = TypeVar("Item")
PRESETS = ("fast", "balanced", "portable")


def new_record(
    title: str,
    arguments: argparse.Namespace,
    *,
    num_seeds: int | None = None,
    key: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Record:
    """The record of a benchmark, which prints each row and writes it to --json.

    num_seeds: how many of --seeds the benchmark uses; None uses all. key, settings: see `Record`.
    """
    return Record(
        title,
        arguments.json,
        key,
        settings or {},
        arguments.seeds[:num_seeds],
        listener=print_row,
    )


@contextmanager
def work_folder(arguments: argparse.Namespace) -> Iterator[Path]:
    """Where models and answers are kept: beside --json, so that a killed run finds them."""
    if arguments.json is None:
        with tempfile.TemporaryDirectory() as name:
            yield Path(name)
    else:
        folder = arguments.json.with_suffix(".work")
        folder.mkdir(parents=True, exist_ok=True)
        yield folder


def print_row(row: Row) -> None:
    """Print one row to stderr as soon as it is measured."""
    cells = [f"{key}={cell_text(value)}" for key, value in row.items() if is_scalar(value)]
    print("  " + "  ".join(cells), file=sys.stderr, flush=True)


def parser(description: str | None, presets: Sequence[str] = PRESETS) -> argparse.ArgumentParser:
    """The common flags: --quick, --preset, --json, --html, --seeds, --threads.

    presets: the names that --preset takes; without "balanced" among them the first is the default.
    """
    flags = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    flags.add_argument("--quick", action="store_true", help="a few minutes: fewer arms, less text")
    flags.add_argument(
        "--json", type=Path, metavar="FILE", help="write meta, rows and checks to this file"
    )
    flags.add_argument("--html", type=Path, metavar="FILE", help="write them as a page")
    flags.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    flags.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch and of the native library"
    )
    flags.add_argument(
        "--preset",
        choices=presets,
        default="balanced" if "balanced" in presets else presets[0],
        help="what is measured, where presets differ",
    )
    return flags


def main(run: Callable[[argparse.Namespace], Record], flags: argparse.ArgumentParser) -> None:
    """Parse, run, print table and checks, write JSON and page; exit 1 when a check failed."""
    arguments = flags.parse_args()
    if arguments.threads:
        use_threads(arguments.threads)
    record = run(arguments)
    print(f"\n{record.title}\n")
    print(table(record.rows))
    for check in record.checks:
        result = "pass" if check.ok else "FAIL"
        print(f"{result}  {check.name}: {cell_text(check.value)} {check.target}")
    record.save()
    if arguments.html:
        write_page(record_page(record), arguments.html)
    sys.exit(0 if record.ok else 1)


def use_threads(count: int) -> None:
    """Give torch and the native library `count` threads."""
    os.environ["FEATHERWEIGHT_THREADS"] = str(count)
    import torch

    torch.set_num_threads(count)


def time_in_turns(
    rivals: Mapping[str, Callable[[], Any]], rounds: int = 5, warmups: int = 1
) -> dict[str, list[float]]:
    """The seconds of every round of each function in `rivals`. A round runs each function once."""
    for rival in rivals.values():
        for _ in range(warmups):
            rival()
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, rival in rivals.items():
            start = time.perf_counter()
            rival()
            seconds[name].append(time.perf_counter() - start)
    return seconds


class OtherProcesses:
    """Measures how many cores other processes have used since this object was created.

    A single other process can slow a measurement on several threads, because threads wait for each
    other.
    """

    def __init__(self) -> None:
        self._start = self._read()

    def busy_cores(self) -> float:
        """The mean number of cores since the start; NaN when the system does not report it. Child
        processes that have ended count as this process.
        """
        wall_seconds, all_seconds, our_seconds = (
            end - start for end, start in zip(self._read(), self._start, strict=True)
        )
        return (all_seconds - our_seconds) / max(wall_seconds, 1e-9)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Wall seconds, busy seconds of all processes, and of this one with its children."""
        try:
            first_line = Path("/proc/stat").read_text().split("\n")[0]
            fields = [float(word) for word in first_line.split()[1:9]]
        except OSError:
            fields = [math.nan] * 8
        user, nice, system, _, _, *interrupts = fields
        times = os.times()
        busy = (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")
        return (
            time.monotonic(),
            busy,
            times.user + times.system + times.children_user + times.children_system,
        )


def progress(stage: str) -> Callable[[Event], None]:
    """A listener that updates one line of stderr, if stderr is a terminal."""

    def show(event: Event) -> None:
        if sys.stderr.isatty():
            eta = "" if event.eta_seconds is None else f", {event.eta_seconds:.0f} s left"
            end = "\n" if event.done == event.total else ""
            print(
                f"\r  {stage} {event.stage} {event.done}/{event.total}{eta}   ",
                end=end,
                file=sys.stderr,
                flush=True,
            )

    return show


def with_stopwatch(items: Iterable[Item]) -> Iterator[tuple[Item, Callable[[], float]]]:
    """Yield each item with a function that returns the seconds since the item was yielded."""
    for item in items:
        start = time.monotonic()
        yield item, lambda start=start: time.monotonic() - start


def is_scalar(value: Any) -> bool:
    """Whether a value is shown in the table; lists and mappings are only in the JSON file."""
    return not isinstance(value, list | dict | tuple)


def cell_text(value: Any) -> str:
    """A number with four significant digits, any other value as text."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def table(rows: Sequence[Row]) -> str:
    """Rows as an aligned table; a row that lacks a column shows a dash."""
    columns = list(
        dict.fromkeys(key for row in rows for key, value in row.items() if is_scalar(value))
    )
    cells = [columns] + [[cell_text(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [
        all(is_scalar(row.get(column)) and not isinstance(row.get(column), str) for row in rows)
        for column in columns
    ]
    lines = [
        "  ".join(
            cell.rjust(width) if is_numeric else cell.ljust(width)
            for cell, width, is_numeric in zip(line, widths, numeric, strict=True)
        )
        for line in cells
    ]
    rule = "  ".join("-" * width for width in widths)
    return "\n".join(line.rstrip() for line in [lines[0], rule, *lines[1:]]) + "\n"
