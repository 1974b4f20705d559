"""How progress is shown, always on stderr: as bars on a terminal, as JSON lines anywhere else.

A bar has the stage, how much of it is done, the rate, the remaining time, the peak of memory so far
and the current item. Without a terminal a stage prints at most one line a second, so that logs stay
short; the event that finishes a stage is always printed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..base.events import Event, Listener

LINE_SECONDS = 1.0  # between two lines of one stage


@contextmanager
def progress(quiet: bool = False) -> Iterator[Listener]:
    """A listener that shows the events that it gets, until the context ends; with `quiet` it shows
    none.
    """
    if quiet:
        yield lambda event: None
    elif sys.stderr.isatty():
        with _bars() as listener:
            yield listener
    else:
        yield JsonLines()


class JsonLines:
    """A listener that prints events as JSON lines on stderr.

    The first event of a stage is printed, then at most one each `LINE_SECONDS`; an event that
    finishes its stage is printed always. `clock` gives the seconds of a monotonic clock.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._line_times: dict[str, float] = {}  # when each stage printed its last line

    def __call__(self, event: Event) -> None:
        """Print `event`, unless its stage printed a line less than a second ago."""
        seconds = self._clock()
        last_line = self._line_times.get(event.stage)
        is_final = event.done >= event.total
        if not is_final and last_line is not None and seconds - last_line < LINE_SECONDS:
            return
        self._line_times[event.stage] = seconds
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
    with Progress(*columns, console=Console(stderr=True)) as bars:
        stages: dict[str, TaskID] = {}

        def show(event: Event) -> None:
            fields: dict[str, Any] = {
                "pace": pace(event),
                "memory": f"{peak_memory_bytes() / 1e9:.1f} GB",
                "message": event.message,
            }
            if event.stage not in stages:
                stages[event.stage] = bars.add_task(event.stage, total=event.total, **fields)
            bars.update(stages[event.stage], completed=event.done, total=event.total, **fields)

        yield show


def pace(event: Event) -> str:
    """The rate and the remaining time of a stage, as "3.2/s, 0:41 left"; of a finished stage the
    time that it took.
    """
    if not event.seconds:
        return ""
    if event.done >= event.total:
        return f"took {clock(event.seconds)}"
    if event.eta_seconds is None:
        return ""
    # The estimate covers this run's units only. So the rate follows from the estimate, not from
    # `done`, which starts above zero in a resumed run.
    remaining_units = event.total - event.done
    rate = remaining_units / event.eta_seconds if event.eta_seconds else 0.0
    rate_text = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each" if rate else ""
    return ", ".join(text for text in (rate_text, f"{clock(event.eta_seconds)} left") if text)


def clock(seconds: float) -> str:
    """Seconds as 0:07, 12:31 or 1:02:03."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
