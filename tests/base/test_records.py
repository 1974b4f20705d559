"""Records: rows survive a kill, a resumed record goes on where it stopped, and bounds decide."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.records import Check, Record


def record(file: Path | None = None, **settings: Any) -> Record:
    return Record("a study", file, key=("method", "bits"), settings=settings or {"windows": 4})


def test_every_row_is_on_the_disk_as_soon_as_it_is_added(tmp_path: Path) -> None:
    file, listened = tmp_path / "record.json", []
    study = Record("a study", file, seeds=(0, 1), facts={"model": "toy"}, listener=listened.append)
    for bits in (2, 3):
        study.add(bits=bits, kl=0.5 / bits, windows=(0.1, math.nan))
        assert len(json.loads(file.read_text())["rows"]) == bits - 1
    content = json.loads(file.read_text())
    assert content["rows"][0] == {"bits": 2, "kl": 0.25, "windows": [0.1, None]}
    assert content["meta"]["title"] == "a study" and content["meta"]["model"] == "toy"
    assert content["meta"]["seeds"] == [0, 1] and content["meta"]["threads"] >= 1
    assert listened == study.rows
    assert [path.name for path in tmp_path.iterdir()] == ["record.json"]


def test_a_resumed_record_holds_the_earlier_rows(tmp_path: Path) -> None:
    first = record(tmp_path / "record.json")
    assert first.resume() == 0
    first.add(method="YAQA", bits=(2, 16), kl=0.4)
    first.check("a claim", 1.0, at_most=2.0)
    first.save()
    second = record(tmp_path / "record.json")
    assert second.resume() == 1
    row = {"method": "YAQA", "bits": [2, 16], "kl": 0.4}
    assert second.find(method="YAQA", bits=(2, 16)) == row
    assert second.find(method="YAQA", bits=3) is None
    assert second.checks == []
    second.add(method="YAQA", bits=3, kl=0.1)
    assert len(json.loads((tmp_path / "record.json").read_text())["rows"]) == 2


def test_a_killed_study_continues(tmp_path: Path) -> None:
    """A child process adds rows and kills itself after the second one; the file holds both."""
    code = """
import os, signal, sys
from pathlib import Path
from featherweight.base.records import Record
study = Record("a study", Path(sys.argv[1]), key=("number",))
study.resume()
for number in range(5):
    if study.find(number=number) is None:
        study.add(number=number, square=number**2)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
"""
    file = tmp_path / "record.json"
    command = [sys.executable, "-c", code, str(file)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert [row["number"] for row in json.loads(file.read_text())["rows"]] == [0, 1]
    subprocess.run(command, check=True)
    assert [row["square"] for row in json.loads(file.read_text())["rows"]] == [0, 1, 4, 9, 16]


def test_another_record_is_not_continued(tmp_path: Path) -> None:
    file = tmp_path / "record.json"
    record(file).add(method="YAQA", bits=2)
    with pytest.raises(UsageError, match="settings"):
        record(file, windows=16).resume()
    with pytest.raises(UsageError, match="title, key"):
        Record("another study", file, settings={"windows": 4}).resume()
    for content in ("{", "[]", '{"meta": {}, "rows": 3}', '{"meta": {}, "rows": [3]}', "3"):
        file.write_text(content)
        with pytest.raises(BadInput, match=r"record\.json"):
            record(file).resume()


def test_rows_are_told_apart_by_their_key() -> None:
    study = record()
    study.add(method="YAQA", bits=2)
    with pytest.raises(ValueError, match="already"):
        study.add(method="YAQA", bits=2)
    with pytest.raises(ValueError, match="bits"):
        study.add(method="YAQA")
    with pytest.raises(ValueError, match="key"):
        study.find(method="YAQA")
    free = Record("rows without a key")
    free.add(seconds=1.0)
    free.add(seconds=1.0)
    assert len(free.rows) == 2


@pytest.mark.parametrize(
    ("value", "bounds", "ok"),
    [
        (1.0, {"at_most": 1.0}, True),
        (1.1, {"at_most": 1.0}, False),
        (1.1, {"at_least": 1.0, "at_most": 1.2}, True),
        (0.9, {"at_least": 1.0}, False),
        (math.nan, {"at_most": 1.0}, False),
        (math.nan, {}, False),
    ],
)
def test_bounds(value: float, bounds: dict[str, float], ok: bool) -> None:
    study = Record("checks")
    assert study.ok
    assert study.check("a claim", value, **bounds) is ok
    assert study.ok is ok


def test_a_check_names_its_bounds() -> None:
    study = Record("checks")
    study.check("ratio", 1.5, at_least=0.75, at_most=1.25)
    assert study.checks == [Check("ratio", 1.5, "<= 1.25 and >= 0.75", False)]
