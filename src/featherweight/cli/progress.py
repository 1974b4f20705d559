"""How progress is shown: bars on a terminal, one JSON line an event anywhere else (always on
stderr).

A bar has the stage, how much of it is done, the rate, the time left, the peak of memory so far and
what is worked on.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..base.events import Event, Listener


@contextmanager
def progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows what it hears for as long as the context is open."""
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield _json_line


def _json_line(event: Event) -> None:
    line = {"time": round(time.time(), 3), "event": "progress", **dataclasses.asdict(event)}
    print(json.dumps(line), file=sys.stderr, flush=True)


@contextmanager
def _bars() -> Iterator[Listener]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    from ..base.machine import peak_memory_bytes

    columns = (
        TextColumn("{task.description:<14}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}"),
        TextColumn("[dim]{task.fields[memory]}  {task.fields[message]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as shown:
        stages: dict[str, TaskID] = {}

        def listen(event: Event) -> None:
            fields: dict[str, Any] = {
                "pace": pace(event),
                "memory": f"{peak_memory_bytes() / 1e9:.1f} GB",
                "message": event.message,
            }
            if event.stage not in stages:
                stages[event.stage] = shown.add_task(event.stage, total=event.total, **fields)
            shown.update(stages[event.stage], completed=event.done, total=event.total, **fields)

        yield listen


def pace(event: Event) -> str:
    """Rate and time left while working, the time taken when done: "3.2/s, 0:41 left"."""
    if not event.seconds:
        return ""
    if event.done >= event.total:
        return f"took {clock(event.seconds)}"
    if event.eta_seconds is None:
        return ""
    # The estimate covers this run's units only, so the rate is taken from it and not from `done`,
    # which a resumed run starts above zero.
    left = event.total - event.done
    rate = left / event.eta_seconds if event.eta_seconds else 0.0
    each = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate else ""
    return ", ".join(part for part in (each, f"{clock(event.eta_seconds)} left") if part)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:31 or 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
