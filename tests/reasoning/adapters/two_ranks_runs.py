"""Starts `two_ranks.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("two_ranks.py")


def run_two_ranks(folder: Path, case: str) -> None:
    """Run a case; what it writes is in `folder`."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    paths = [str(SCRIPT.parent), *(path for path in sys.path if path)]
    output = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), case],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"},
    )
    assert output.returncode == 0, output.stderr
