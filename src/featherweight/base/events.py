"""Progress as data: long work reports `Event`s to a listener, and the caller decides how to show
them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Event:
    """The progress of a stage: `done` of `total` units are finished after `seconds`.

    `eta_seconds`: the estimated time for the other units; None before the first is finished.
    `message`: what is being processed, such as the name of a layer. `values`: measurements of this
    unit by name, such as the loss of a training step.
    """

    stage: str
    done: int
    total: int
    seconds: float = 0.0
    eta_seconds: float | None = None
    message: str = ""
    values: Mapping[str, float] = field(default_factory=dict, hash=False)


Listener = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that shows nothing."""


def send_to(*listeners: Listener) -> Listener:
    """A listener that passes every event on to all of `listeners`."""

    def listener(event: Event) -> None:
        for receive in listeners:
            receive(event)

    return listener


def track(
    items: Iterable[Item], stage: str, total: int, listener: Listener = silent, done: int = 0
) -> Iterator[Item]:
    """Yield `items`, and report each one to `listener` when the caller asks for the next.

    `done`: the units of `total` that an earlier run finished. The estimated time comes from the
    units of this run only, because the time of the earlier ones is not known here.
    """
    start = time.monotonic()
    listener(Event(stage, done, total))
    for count, item in enumerate(items, 1):
        yield item
        seconds = time.monotonic() - start
        eta_seconds = seconds / count * (total - done - count)
        listener(Event(stage, done + count, total, seconds, eta_seconds))
