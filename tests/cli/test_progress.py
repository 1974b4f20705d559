"""Progress: without a terminal a stage prints at most one line a second, and always its end; the
rates and times of bars are readable.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from featherweight.base.events import Event
from featherweight.cli.progress import JsonLines, clock, pace, progress


class FakeClock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def printed_events(capsys: Any) -> list[tuple[str, int]]:
    """(stage, done) of each line on stderr, since the last call."""
    lines = map(json.loads, capsys.readouterr().err.splitlines())
    return [(line["stage"], line["done"]) for line in lines]


def test_a_stage_prints_one_line_a_second(capsys: Any) -> None:
    fake_clock = FakeClock()
    listener = JsonLines(fake_clock)
    for done in range(272):
        listener(Event("convert", done, 272))
        fake_clock.seconds += 0.0125  # 80 events a second
    assert printed_events(capsys) == [("convert", done) for done in (0, 80, 160, 240)]


def test_the_end_of_a_stage_is_always_printed(capsys: Any) -> None:
    listener = JsonLines(FakeClock())
    for stage in ("download", "convert"):
        for done in range(5):
            listener(Event(stage, done, 4))
    assert printed_events(capsys) == [
        ("download", 0),
        ("download", 4),
        ("convert", 0),
        ("convert", 4),
    ]
    listener(Event("convert", 0, 4))
    assert printed_events(capsys) == [], "the same stage printed a line in this second"
    listener(Event("convert", 4, 4))
    assert printed_events(capsys) == [("convert", 4)]


def test_stages_do_not_delay_each_other(capsys: Any) -> None:
    fake_clock = FakeClock()
    listener = JsonLines(fake_clock)
    listener(Event("layers", 1, 9))
    fake_clock.seconds += 0.5
    listener(Event("evaluate", 1, 9))
    listener(Event("layers", 2, 9))
    fake_clock.seconds += 0.5
    listener(Event("evaluate", 2, 9))
    listener(Event("layers", 3, 9))
    assert printed_events(capsys) == [("layers", 1), ("evaluate", 1), ("layers", 3)]


def test_a_line_holds_the_whole_event(capsys: Any) -> None:
    with progress() as listener:
        listener(Event("layers", 1, 2, 2.0, 2.5, "layer.0"))
    line = json.loads(capsys.readouterr().err)
    assert isinstance(line.pop("time"), float)
    assert line == {
        "event": "progress",
        "stage": "layers",
        "done": 1,
        "total": 2,
        "seconds": 2.0,
        "eta_seconds": 2.5,
        "message": "layer.0",
        "values": {},
    }
    with progress(quiet=True) as listener:
        listener(Event("layers", 1, 2))
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (Event("s", 0, 4), ""),
        (Event("s", 2, 4, 8.0, 8.0), "4.0 s each, 0:08 left"),
        (Event("s", 200, 400, 10.0, 10.0), "20.0/s, 0:10 left"),
        (Event("s", 4, 4, 71.0, 0.0), "took 1:11"),
        (Event("s", 3, 4, 71.0, None), ""),
    ],
)
def test_pace(event: Event, text: str) -> None:
    assert pace(event) == text


def test_clock() -> None:
    assert [clock(value) for value in (0, 59.6, 751, 3723)] == ["0:00", "1:00", "12:31", "1:02:03"]
