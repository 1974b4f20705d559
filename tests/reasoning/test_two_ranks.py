"""Two gloo processes sample, mark and learn what one does, up to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("policy_two_ranks.py")


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    output = subprocess.run(
        [sys.executable, str(SCRIPT), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert output.returncode == 0, output.stderr
    one, two = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one", "two"))
    assert len(one) == 4
    for row, expected in zip(two, one, strict=True):
        assert row == pytest.approx(expected, rel=1e-6, abs=1e-9, nan_ok=True)
    reference = load_file(tmp_path / "one-0.safetensors")
    ranks = [load_file(tmp_path / f"two-{rank}.safetensors") for rank in range(2)]
    for name, tensor in reference.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        torch.testing.assert_close(ranks[0][name], tensor, rtol=0, atol=1e-7)
