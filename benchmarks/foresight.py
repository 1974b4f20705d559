"""Compares the memory, disk space and time that `fw plan` predicts with those of a complete run of
the same recipe.

Memory is the peak resident size of the process, disk space is the largest sampled size of
OUT.partial/, and time is the wall-clock time from start to exit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Record, main, new_record, parser

MODEL = "SmolLM2-135M-Instruct"
MAX_ERROR = 0.25
FW = [sys.executable, "-m", "featherweight"]


def run(arguments: argparse.Namespace) -> Record:
    record = new_record(f"plan against measurement, preset {arguments.preset}", arguments)
    presets = [arguments.preset] if arguments.quick else ["fast", "balanced"]
    for preset in presets:
        with tempfile.TemporaryDirectory(prefix="featherweight-foresight-") as work:
            recipe = [MODEL, "--preset", preset, "--bits", "3" if preset == "fast" else "2"]
            plan = predict(recipe)
            measurement = measure(
                [*recipe, "--out", str(Path(work) / "out")], Path(work) / "out.partial"
            )
        for quantity, unit in (("memory", 1e9), ("disk", 1e9), ("seconds", 1)):
            value, truth = plan[quantity] / unit, measurement[quantity] / unit
            record.add(
                preset=preset, what=quantity, planned=value, measured=truth, ratio=value / truth
            )
            record.check(
                f"{preset}: planned / measured {quantity}",
                value / truth,
                at_least=1 - MAX_ERROR,
                at_most=1 + MAX_ERROR,
            )
    return record


def predict(recipe: list[str]) -> dict[str, float]:
    """The figures of `fw plan --json`."""
    text = subprocess.run(
        [*FW, "plan", *recipe, "--json"], check=True, capture_output=True, text=True
    ).stdout
    plan = json.loads(text)
    return {
        "memory": plan["peak_memory_bytes"],
        "disk": plan["disk_bytes"],
        "seconds": plan["seconds"],
    }


def measure(recipe: list[str], partial: Path) -> dict[str, float]:
    """The figures of one run of `fw quantize`."""
    start = time.monotonic()
    process = subprocess.Popen(
        [*FW, "quantize", *recipe], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    disk = 0.0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        disk = max(disk, size_of(partial))
        time.sleep(0.1)
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"fw quantize {' '.join(recipe)} failed")
    return {"memory": usage.ru_maxrss * 1024, "disk": disk, "seconds": time.monotonic() - start}


def size_of(folder: Path) -> float:
    """The bytes of all files on the disk. Files that are deleted during the count are left out."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


if __name__ == "__main__":
    main(run, parser(__doc__))
