"""Any record has a page: its rows, its checks, and how it was measured."""

from __future__ import annotations

import pytest
from html_page import Page

from featherweight.base.records import Record
from featherweight.reporting import Table, record_page, record_sections


@pytest.fixture
def record() -> Record:
    record = Record("start-up", seeds=(0,), settings={"rounds": 5, "models": ["toy", "tiny"]})
    record.add(what="python", seconds=0.0119, file_bytes=12_345_678, ok=True, rounds=5, all=[1, 2])
    record.add(what="fw --help <b>", seconds=None, rounds=1234)
    record.check("import: median seconds", 0.0207, at_most=0.3)
    return record


def test_rows_checks_and_conditions_are_there(record):
    text = Page(record_page(record)).text
    assert "The only check passed." in text
    for words in (
        "12.3 MB",
        "0.01190",
        "1,234",
        "fw --help <b>",
        "<= 0.3",
        "passed",
        "rounds 5",
        "models toy, tiny",
    ):
        assert words in text, words
    assert "[1, 2]" not in text  # lists are left to the JSON file


def test_the_verdict_names_what_failed(record):
    record.check("fw --help: seconds", 0.4, at_most=0.3)
    text = Page(record_page(record)).text
    assert "1 of 2 checks failed: fw --help: seconds." in text
    assert "No claim was checked." in Page(record_page(Record("empty"))).text


def test_columns_of_numbers_sort_as_numbers(record):
    table = record_sections(record)[0]
    assert isinstance(table, Table)
    units = {column.name: column.unit for column in table.columns}
    assert units["what"] is None and units["ok"] is None
    assert units["seconds"] is not None and units["file"] is not None
    assert list(units) == ["what", "seconds", "file", "ok", "rounds"]
    assert table.rows[1] == ["fw --help <b>", None, None, None, 1234.0]
