"""Two gloo processes equal one, up to rounding: with replicated parameters, under FSDP2, and with a
teacher of another tokenizer.
"""

from __future__ import annotations

import json
import os
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all runs."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("ranks")
    output = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert output.returncode == 0, output.stderr
    return folder


def rows(runs: Path, name: str) -> list[list[float]]:
    """Number, loss, gradient norm and units of each step."""
    content: list[list[float]] = json.loads((runs / f"{name}.json").read_text())
    return content


def newest(runs: Path, name: str) -> StateFile:
    files = (runs / f"{name}.partial" / "work" / "training").iterdir()
    return max(map(StateFile, files), key=lambda file: file.numbers["progress"]["step"])


@pytest.mark.parametrize("case", ["replicated", "sharded", "across_tokenizers"])
def test_two_processes_equal_one(runs: Path, case: str) -> None:
    one, two = f"{case}_one", f"{case}_two"
    assert len(rows(runs, one)) == 6
    for row, expected in zip(rows(runs, two), rows(runs, one), strict=True):
        assert row == pytest.approx(expected, rel=1e-4)
    actual, expected_state = newest(runs, two), newest(runs, one)
    assert sorted(actual.names()) == sorted(expected_state.names())
    for name in expected_state.names():
        torch.testing.assert_close(
            actual.read(name), expected_state.read(name), rtol=1e-3, atol=1e-5, msg=name
        )


def test_two_processes_resume_with_the_same_bits(runs: Path) -> None:
    assert rows(runs, "resumed") == rows(runs, "sharded_two")[2:]
    resumed, straight = newest(runs, "resumed"), newest(runs, "sharded_two")
    for name in straight.names():
        assert torch.equal(resumed.read(name), straight.read(name)), name


def test_there_must_be_a_group_to_shard_over() -> None:
    model: Any = torch.nn.Linear(2, 2)
    with pytest.raises(UsageError, match="start with torchrun"):
        shard(model)
