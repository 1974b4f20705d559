"""What every benchmark does alike: common flags, rounds that take turns, one shape of JSON, a
table, checks.

A benchmark is a module with `run(arguments) -> Report`; its `if __name__` line hands that to
`main`. The JSON is
{"meta": {...}, "rows": [...], "checks": [...]}: meta says what machine, how many threads, how busy it was, which seeds
and which versions; a row is one measured thing; a check is a claim with its bound and whether it
held. The exit code is
1 when a check failed. Timings of rivals are taken in turns (`in_turns`), so that a busy minute hits them all.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from featherweight.base import machine
from featherweight.base.events import Event
from featherweight.base.files import write_atomic

Row = dict[str, Any]
Item = TypeVar("Item")
PRESETS = ("fast", "balanced", "portable")


@dataclass
class Report:
    """What a benchmark found; rows print as a table in the order in which they were added."""

    title: str
    seeds: Sequence[int] = ()
    rows: list[Row] = field(default_factory=list)
    checks: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    file: Path | None = None
    started: float = field(default_factory=time.monotonic)

    def add(self, **row: Any) -> Row:
        """Add a row, say so on stderr, and write what there is to `file`: a long run that is cut
        off keeps its rows.
        """
        self.rows.append(row)
        self.save()
        print(
            "  " + "  ".join(f"{k}={shown(v)}" for k, v in row.items() if plain(v)),
            file=sys.stderr,
            flush=True,
        )
        return row

    def check(
        self,
        claim: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> bool:
        """Record whether `value` keeps its bounds; NaN keeps none."""
        held = not math.isnan(value)
        held = (
            held
            and (at_most is None or value <= at_most)
            and (at_least is None or value >= at_least)
        )
        bounds = [
            f"{word} {bound:g}"
            for word, bound in (("<=", at_most), (">=", at_least))
            if bound is not None
        ]
        self.checks.append(
            {"name": claim, "value": value, "target": " and ".join(bounds), "ok": bool(held)}
        )
        return held

    def save(self) -> None:
        """Write meta, rows and checks to `file`, when there is one."""
        if self.file is not None:
            content = {"meta": self.meta(), "rows": self.rows, "checks": self.checks}
            write_atomic(self.file, (json.dumps(finite(content), indent=1) + "\n").encode("utf-8"))

    def meta(self) -> dict[str, Any]:
        """Machine and its load, threads, seeds, versions, and the benchmark's own facts."""
        return {
            "benchmark": self.title,
            **machine.describe(),
            "threads": num_threads(),
            "load": machine.load_average(),
            "seeds": list(self.seeds),
            "versions": machine.versions(),
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "seconds": round(time.monotonic() - self.started, 1),
            "date": time.strftime("%Y-%m-%d"),
            **self.facts,
        }


def parser(description: str | None) -> argparse.ArgumentParser:
    """The common flags: --quick, --preset, --json, --seeds, --threads."""
    made = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    made.add_argument("--quick", action="store_true", help="a few minutes: fewer arms, less text")
    made.add_argument("--json", type=Path, metavar="FILE", help="write meta, rows and checks there")
    made.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="SEED")
    made.add_argument(
        "--threads", type=int, metavar="N", help="threads of torch and of the native library"
    )
    made.add_argument(
        "--preset",
        choices=PRESETS,
        default="balanced",
        help="what is measured, where presets differ",
    )
    return made


def main(run: Callable[[argparse.Namespace], Report], made: argparse.ArgumentParser) -> None:
    """Parse, run, print the table and the checks, write the JSON; exit 1 when a check failed."""
    arguments = made.parse_args()
    if arguments.threads:
        use_threads(arguments.threads)
    report = run(arguments)
    print(f"\n{report.title}\n")
    print(table(report.rows))
    for check in report.checks:
        print(
            f"{'pass' if check['ok'] else 'FAIL'}  {check['name']}: {shown(check['value'])} {check['target']}"
        )
    report.file = arguments.json
    report.save()
    sys.exit(0 if all(check["ok"] for check in report.checks) else 1)


def use_threads(count: int) -> None:
    """Give torch and the native library `count` threads."""
    os.environ["FEATHERWEIGHT_THREADS"] = str(count)
    import torch

    torch.set_num_threads(count)


def num_threads() -> int:
    """Threads that torch computes with, or the cores where torch was not needed."""
    torch = sys.modules.get("torch")
    return torch.get_num_threads() if torch else machine.num_cores()


def in_turns(
    rivals: Mapping[str, Callable[[], Any]], rounds: int = 5, warmups: int = 1
) -> dict[str, list[float]]:
    """Seconds of every round of every rival; round r runs each rival once before round r + 1
    begins.
    """
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


class Others:
    """Cores that other processes keep busy, since this was made: with threads that wait for each
    other, they decide.
    """

    def __init__(self) -> None:
        self._start = self._read()

    def cores(self) -> float:
        """The mean since then; NaN where the system does not say.

        Children count as ours once they have ended.
        """
        then, now = self._start, self._read()
        return ((now[1] - then[1]) - (now[2] - then[2])) / max(now[0] - then[0], 1e-9)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        """Wall seconds, busy seconds of all processes, and of this one with its children."""
        try:
            fields = [
                float(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]
            ]
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
    """A listener that keeps one line of stderr up to date when that is a terminal."""

    def show(event: Event) -> None:
        if sys.stderr.isatty():
            left = "" if event.eta_seconds is None else f", {event.eta_seconds:.0f} s left"
            end = "\n" if event.done == event.total else ""
            print(
                f"\r  {stage} {event.stage} {event.done}/{event.total}{left}   ",
                end=end,
                file=sys.stderr,
                flush=True,
            )

    return show


def timed(items: Iterable[Item]) -> Iterator[tuple[Item, Callable[[], float]]]:
    """Each item with a function that says how many seconds have passed since it was handed out."""
    for item in items:
        start = time.monotonic()
        yield item, lambda since=start: time.monotonic() - since


def plain(value: Any) -> bool:
    """Whether a value fits a cell of the table; lists and dicts are for the JSON only."""
    return not isinstance(value, list | dict | tuple)


def shown(value: Any) -> str:
    """A number to four digits that matter."""
    if isinstance(value, bool) or not isinstance(value, float):
        return "-" if value is None else str(value)
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def table(rows: Sequence[Row]) -> str:
    """Rows as an aligned table; a row that lacks a column shows a dash."""
    columns = list(dict.fromkeys(key for row in rows for key, value in row.items() if plain(value)))
    cells = [columns] + [[shown(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [
        all(plain(r.get(c)) and not isinstance(r.get(c), str) for r in rows) for c in columns
    ]
    lines = [
        "  ".join(
            cell.rjust(w) if right else cell.ljust(w)
            for cell, w, right in zip(line, widths, numeric, strict=True)
        )
        for line in cells
    ]
    return (
        "\n".join(
            line.rstrip() for line in [lines[0], "  ".join("-" * w for w in widths), *lines[1:]]
        )
        + "\n"
    )


def finite(value: Any) -> Any:
    """The same with None for NaN and infinities, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
