"""A run that is killed at a random moment of every stage ends with the bits of one that was not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from featherweight.training.state import StateFile

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def test_killed_at_every_stage_ends_with_the_same_bits(tmp_path: Path) -> None:
    script = Path(__file__).with_name("killed_run.py")
    output = subprocess.run(
        [sys.executable, str(script), str(tmp_path), "3"],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert output.returncode == 0, output.stderr
    killed_at = json.loads(output.stdout)
    assert len(killed_at) == 6
    assert len(set(killed_at.values())) >= 4
    newest = []
    for name in ("straight", "killed"):
        folder = tmp_path / f"{name}.partial" / "work" / "training"
        files = [StateFile(path) for path in sorted(folder.glob("*.safetensors"))]
        newest.append(max(files, key=lambda file: file.numbers["progress"]["step"]))
    straight, killed = newest
    assert straight.numbers["progress"]["step"] == 60
    assert killed.numbers == straight.numbers
    assert sorted(killed.names()) == sorted(straight.names())
    for name in straight.names():
        assert torch.equal(killed.read(name), straight.read(name)), name
    assert any(name.startswith("optimizer/loss/scale/") for name in straight.names())
    assert straight.read("loss/count").item() == 120
