"""Progress as data: long work reports `Event`s to a listener; whoever called decides how to show
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Event:
    """`done` of `total` units of `stage` are finished after `seconds`; `eta_seconds` is None before
    the first.
    """

    stage: str
    done: int
    total: int
    seconds: float = 0.0
    eta_seconds: float | None = None
    message: str = ""


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that shows nothing."""


def track(
    items: Iterable[Item], stage: str, total: int, listener: Listener = silent, done: int = 0
) -> Iterator[Item]:
    """Yield `items`, reporting each one when the caller comes back for the next; `done` units were
    finished earlier.

    The estimate uses this run's pace only, so that resuming does not flatter it.
    """
    start = time.monotonic()
    listener(Event(stage, done, total))
    for fresh, item in enumerate(items, 1):
        yield item
        seconds = time.monotonic() - start
        left = total - done - fresh
        listener(Event(stage, done + fresh, total, seconds, seconds / fresh * left))
