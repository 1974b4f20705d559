"""Two gloo processes equal one, up to rounding: with replicated parameters, and under FSDP2."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.training import shard
from featherweight.training.state import StateFile

SCRIPT = Path(__file__).with_name("two_ranks.py")


def launch(folder: Path, case: str, num_ranks: int, stop: int = 99) -> list[list[float]]:
    """Start the processes as torchrun does, and return the rows of the steps."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "WORLD_SIZE": str(num_ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), case, str(stop)],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(num_ranks)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert all(process.returncode == 0 for process in processes), errors
    rows: list[list[float]] = json.loads((folder.parent / f"{folder.name}.json").read_text())
    return rows


def newest(folder: Path) -> StateFile:
    files = (folder.with_name(f"{folder.name}.partial") / "work" / "training").iterdir()
    return max(map(StateFile, files), key=lambda file: file.numbers["progress"]["step"])


def assert_close(actual: StateFile, expected: StateFile) -> None:
    assert sorted(actual.names()) == sorted(expected.names())
    for name in expected.names():
        torch.testing.assert_close(
            actual.read(name), expected.read(name), rtol=1e-3, atol=1e-5, msg=name
        )


@pytest.mark.parametrize("case", ["replicated", "sharded"])
def test_two_processes_equal_one(tmp_path: Path, case: str) -> None:
    """The losses, norms and states; and a resumed pair equals an uninterrupted one, bit for bit."""
    one = launch(tmp_path / "one", case, 1)
    two = launch(tmp_path / "two", case, 2)
    for row, expected in zip(two, one, strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    assert_close(newest(tmp_path / "two"), newest(tmp_path / "one"))
    if case == "sharded":
        launch(tmp_path / "resumed", case, 2, stop=3)
        rest = launch(tmp_path / "resumed", case, 2)
        assert rest == two[2:]
        resumed, straight = newest(tmp_path / "resumed"), newest(tmp_path / "two")
        for name in straight.names():
            assert torch.equal(resumed.read(name), straight.read(name)), name


def test_there_must_be_a_group_to_shard_over() -> None:
    model: Any = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match="start with torchrun"):
        shard(model)
