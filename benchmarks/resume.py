"""Checks that a run which is killed at random moments and resumed ends with the same bytes.

A model is quantized twice: once without interruption, and once killed several times with SIGKILL
and started again until it is complete. The moments of the kills are random (seeded) and spread over
the whole run. Weights, config and recipe must be equal byte for byte; the reports are not compared,
because they contain times.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import Record, main, new_record, parser

from featherweight.base.files import sha256

MODEL = "SmolLM2-135M-Instruct"
KILLS = 5
START_UP_SECONDS = 3.0


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("killed and resumed", arguments)
    with tempfile.TemporaryDirectory(prefix="featherweight-resume-") as work:
        for seed in arguments.seeds:
            compare(record, arguments, seed, Path(work))
    return record


def compare(record: Record, arguments: argparse.Namespace, seed: int, work: Path) -> None:
    """One uninterrupted run and one that is killed KILLS times."""
    straight_out, killed_out = work / "straight", work / "killed"
    seconds, _ = start(arguments, straight_out)
    record.add(seed=seed, run="straight", seconds=seconds, killed=0, done="")
    chance = random.Random(seed)
    # A resumed run has to start up again, and only computes what the earlier runs did not finish.
    share = seconds / (KILLS + 2)
    kills = 0
    for index in range(KILLS):
        wait = share * (0.5 + chance.random()) + (0 if index == 0 else START_UP_SECONDS)
        run_seconds, last_step = start(arguments, killed_out, wait)
        if last_step is None:
            break
        kills += 1
        record.add(seed=seed, run="killed", seconds=run_seconds, killed=kills, done=last_step)
    seconds, _ = start(arguments, killed_out)
    record.add(seed=seed, run="resumed to the end", seconds=seconds, killed=kills, done="")
    first, second = fingerprints(straight_out), fingerprints(killed_out)
    differing_names = sorted(name for name in first | second if first.get(name) != second.get(name))
    record.facts[f"files_{seed}"] = first
    record.facts[f"different_{seed}"] = differing_names
    record.check(f"seed {seed}: kills that met a running process", kills, at_least=KILLS)
    record.check(
        f"seed {seed}: files that differ, of {len(first)}", len(differing_names), at_most=0
    )
    for folder in (straight_out, killed_out):
        shutil.rmtree(folder)


def start(
    arguments: argparse.Namespace, out: Path, kill_after: float | None = None
) -> tuple[float, str | None]:
    """Run the command to its end, or kill it after `kill_after` seconds. Returns the seconds of the
    run, and the last event before the kill (None when the run ended before).
    """
    bits = "3" if arguments.preset == "fast" else "2"
    command = [
        sys.executable,
        "-m",
        "featherweight",
        "quantize",
        MODEL,
        "--preset",
        arguments.preset,
    ]
    command += ["--bits", bits, "--out", str(out), "--no-evaluate"]
    if arguments.quick:
        command += ["--set", "calibration.count=16"]
    began = time.monotonic()
    log = out.with_suffix(".log")
    with open(log, "w") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        try:
            code = process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            assert not out.exists(), "a killed run left a finished folder"
            return time.monotonic() - began, last_event(log)
    if code != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text()[-2000:]}")
    return time.monotonic() - began, None


def last_event(log: Path) -> str:
    """The stage and step in the last progress line."""
    for line in reversed(log.read_text().splitlines()):
        if line.startswith("{"):
            event = json.loads(line)
            if "stage" in event:
                return f"{event['stage']} {event['done']}/{event['total']}"
    return "start"


def fingerprints(folder: Path) -> dict[str, str]:
    """SHA-256 of weights, config and recipe."""
    files = [folder / "config.json", folder / "run.yaml", *sorted(folder.glob("*.safetensors"))]
    return {file.name: sha256(file) for file in files}


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.set_defaults(preset="fast")
    main(run, flags)
