"""Tries ten thousand hostile or unusual model folders (tests/interchange/hostile_strategies.py).

    python benchmarks/hostile.py [--quick] [--folders N] [--seeds S] [--json FILE]

Each folder is read, loaded and quantized, and tests/interchange/hostile_check.py says what must
hold: success or one of this library's own errors, no code of the folder run, nothing written
outside the output folder, and the same logits as in transformers where a model loads. A row is a
hundred folders; a killed run with --json continues after its last row. The edits of every folder
that breaks a rule are printed and kept in its row.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from common import Record, main, new_record, parser
from hypothesis import HealthCheck, Phase, given, seed, settings

ROOT = Path(__file__).resolve().parent.parent
FOLDERS_PER_ROW = 100
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ["HF_HUB_OFFLINE"] = "1"

from tests.interchange import hostile_strategies  # noqa: E402
from tests.interchange.hostile_check import Room  # noqa: E402
from tests.interchange.hostile_edits import Edit  # noqa: E402


def run(arguments: argparse.Namespace) -> Record:
    facts = {"folders_per_row": FOLDERS_PER_ROW}
    record = new_record("hostile folders", arguments, key=("seed", "row"), settings=facts)
    record.resume()
    num_rows = (100 if arguments.quick else arguments.folders) // FOLDERS_PER_ROW
    with tempfile.TemporaryDirectory(prefix="featherweight-hostile-") as work:
        os.environ["HF_MODULES_CACHE"] = str(Path(work) / "modules")
        room = Room(Path(work))
        for seed_number in arguments.seeds:
            for row in range(num_rows):
                if record.find(seed=seed_number, row=row) is None:
                    record.add(seed=seed_number, row=row, **try_folders(room, seed_number, row))
    rows = [record.find(seed=s, row=row) or {} for s in arguments.seeds for row in range(num_rows)]
    record.check("folders", sum(row["folders"] for row in rows), at_least=100 * len(rows))
    record.check("folders that break a rule", sum(len(row["broken"]) for row in rows), at_most=0)
    for outcome in ("quantized", "refused"):
        share = sum(row[outcome] for row in rows) / sum(row["folders"] for row in rows)
        record.check(f"share of folders {outcome}", share, at_least=0.1)
    return record


def try_folders(room: Room, seed_number: int, row: int) -> dict[str, Any]:
    """The outcomes of a hundred folders, and the edits of those that break a rule."""
    outcomes: Counter[str] = Counter()
    broken: list[str] = []

    @seed(seed_number << 20 | row)
    @settings(
        max_examples=FOLDERS_PER_ROW,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(hostile_strategies.folders())
    def check(folder: tuple[str, list[Edit]]) -> None:
        try:
            outcomes[room.outcome(*folder)] += 1
        except AssertionError as error:
            broken.append(f"{folder[0]} {folder[1]}: {error}"[:1000])
            print(broken[-1], file=sys.stderr, flush=True)

    check()
    counts = {name: outcomes[name] for name in ("quantized", "loaded", "refused")}
    num_folders = sum(counts.values()) + len(broken)
    return {"folders": num_folders, **counts, "num_broken": len(broken), "broken": broken}


if __name__ == "__main__":
    options = parser(__doc__)
    options.add_argument(
        "--folders", type=int, default=10_000, metavar="N", help="folders a seed, in hundreds"
    )
    main(run, options)
