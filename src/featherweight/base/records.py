"""The record of a benchmark or a study: the conditions, the measurements, and the checks of claims.

    {"meta": {...}, "rows": [...], "checks": [...]}

`meta` holds the machine, its load, the number of threads, seeds, settings and versions. A row is
one measured item. A check is a claim with its bound and whether the claim is true. The file is
written atomically after every row, so a killed run keeps its rows. A record whose rows have a key
can be resumed: rows that are in the file already are not measured again.

    record = Record("which bits", file, key=("bits", "seed"), settings={"windows": 16})
    record.resume()
    for bits in (2, 3, 4):
        if record.find(bits=bits, seed=0) is None:
            record.add(bits=bits, seed=0, kl=measure(bits))
    record.check("KL at 4 bits", record.find(bits=4, seed=0)["kl"], at_most=0.1)
    record.save()
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import machine
from .errors import BadInput, UsageError
from .files import write_atomic

Row = dict[str, Any]


@dataclass(frozen=True)
class Check:
    """The check of the claim `name`: `value` was compared with the bounds in `target`, such as
    "<= 0.1", and `ok` says whether it keeps them.
    """

    name: str
    value: float
    target: str
    ok: bool


def ignore_row(row: Row) -> None:
    """A listener that does nothing."""


@dataclass
class Record:
    """The measurements of a benchmark or a study.

    title: what was measured, in a few words.
    file: the file that is written after every row; None keeps the record in memory.
    key: the columns whose values identify a row; empty when rows are never looked up.
    settings: plain data that the meaning of the rows depends on (model, text, number of windows); a
        file with other settings is not resumed.
    seeds: the seeds of the run.
    facts: additional entries of `meta`; can be added at any time.
    listener: is called with every row that is added.
    """

    title: str
    file: Path | None = None
    key: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    listener: Callable[[Row], None] = ignore_row
    rows: list[Row] = field(default_factory=list, init=False)
    checks: list[Check] = field(default_factory=list, init=False)
    _start: float = field(default_factory=time.monotonic, init=False, repr=False)
    _earlier_seconds: float = field(default=0.0, init=False, repr=False)

    @property
    def ok(self) -> bool:
        """Whether every check is ok; true for a record without checks."""
        return all(check.ok for check in self.checks)

    def resume(self) -> int:
        """Read the rows that an earlier run wrote to `file`, and return their number (0 when there
        is no file).

        Checks are not read, because they depend on all rows. Raises BadInput when the file is no
        record, UsageError when it has another title, key or settings.
        """
        if self.file is None or not self.file.exists():
            return 0
        meta, rows = _read(self.file)
        identity = json_ready(self._identity())
        differences = [name for name, value in identity.items() if meta.get(name) != value]
        if differences:
            raise UsageError(
                f"{self.file} holds another record (these differ: {', '.join(differences)}); "
                "remove it, or write to another file"
            )
        self.rows[:] = rows
        seconds = meta.get("seconds")
        self._earlier_seconds = float(seconds) if isinstance(seconds, int | float) else 0.0
        return len(rows)

    def find(self, **key: Any) -> Row | None:
        """The row whose key columns have these values, or None; every key column must be given."""
        if set(key) != set(self.key):
            raise ValueError(f"the key of {self.title!r} is {self.key}, not {tuple(key)}")
        return next((row for row in self.rows if self._key_of(row) == self._key_of(key)), None)

    def add(self, **row: Any) -> Row:
        """Append a row, write the file, call the listener, and return the row.

        Raises ValueError when a key column is missing or a row with the same key exists.
        """
        missing_columns = [column for column in self.key if column not in row]
        if missing_columns:
            raise ValueError(f"a row of {self.title!r} lacks its key columns {missing_columns}")
        if self.key and self.find(**{column: row[column] for column in self.key}) is not None:
            raise ValueError(f"{self.title!r} already has a row {self._key_of(row)}")
        self.rows.append(row)
        self.save()
        self.listener(row)
        return row

    def check(
        self,
        claim: str,
        value: float,
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> bool:
        """Add a check of `claim` and return whether `value` is within its bounds; NaN never is."""
        ok = (
            not math.isnan(value)
            and (at_most is None or value <= at_most)
            and (at_least is None or value >= at_least)
        )
        bounds = [
            f"{sign} {limit:g}"
            for sign, limit in (("<=", at_most), (">=", at_least))
            if limit is not None
        ]
        self.checks.append(Check(claim, value, " and ".join(bounds), bool(ok)))
        return bool(ok)

    def meta(self) -> dict[str, Any]:
        """Title, key and settings; machine and its load, threads, seeds, versions; `facts`."""
        return {
            **self._identity(),
            **machine.describe(),
            "threads": num_threads(),
            "seeds": list(self.seeds),
            "versions": machine.versions(),
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "seconds": round(self._earlier_seconds + time.monotonic() - self._start, 1),
            "date": time.strftime("%Y-%m-%d"),
            **self.facts,
        } | self._identity()

    def save(self) -> None:
        """Write meta, rows and checks to `file`, when there is one."""
        if self.file is not None:
            checks = [asdict(check) for check in self.checks]
            content = {"meta": self.meta(), "rows": self.rows, "checks": checks}
            write_atomic(self.file, json.dumps(json_ready(content), indent=1) + "\n")

    def _identity(self) -> dict[str, Any]:
        """The entries that must be equal in an earlier file so that it can be resumed."""
        return {"title": self.title, "key": list(self.key), "settings": dict(self.settings)}

    def _key_of(self, row: Mapping[str, Any]) -> str:
        """The key as JSON, so that a row that was read equals the row that was written."""
        return json.dumps([json_ready(row.get(column)) for column in self.key])


def num_threads() -> int:
    """Threads that torch computes with; the number of cores in a process without torch."""
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch else machine.num_cores()


def json_ready(value: Any) -> Any:
    """`value` as data for JSON: NaN and infinities become None, tuples become lists, keys become
    text.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_ready(item) for item in value]
    return value


def _read(file: Path) -> tuple[Mapping[str, Any], list[Row]]:
    """The meta entry and the rows in the file of a record."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{file} cannot be read as JSON: {error}") from error
    meta, rows = (content.get("meta"), content.get("rows")) if isinstance(content, dict) else (0, 0)
    if not isinstance(meta, dict) or not isinstance(rows, list):
        raise BadInput(f"{file} is no record: it should hold meta, rows and checks")
    if not all(isinstance(row, dict) for row in rows):
        raise BadInput(f"{file} is no record: every row should be an object")
    return meta, rows
