"""Killed at random moments, does the same command end with the same bytes?

The real model is quantized once without interruption and once killed with SIGKILL at random moments
(seeded, spread over the whole run) and started again until it is done. Weights, config and recipe
must be equal byte for byte; the reports hold times and are left out.
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
    straight, killed = work / "straight", work / "killed"
    seconds, _ = start(arguments, straight)
    record.add(seed=seed, run="straight", seconds=seconds, killed=0, done="")
    chance = random.Random(seed)
    # A resumed run starts up again; what is left of the run shrinks by what each one finished.
    share = seconds / (KILLS + 2)
    kills = 0
    for index in range(KILLS):
        wait = share * (0.5 + chance.random()) + (0 if index == 0 else START_UP_SECONDS)
        spent, done = start(arguments, killed, wait)
        if done is None:
            break
        kills += 1
        record.add(seed=seed, run="killed", seconds=spent, killed=kills, done=done)
    seconds, _ = start(arguments, killed)
    record.add(seed=seed, run="resumed to the end", seconds=seconds, killed=kills, done="")
    first, second = fingerprints(straight), fingerprints(killed)
    different = sorted(name for name in first | second if first.get(name) != second.get(name))
    record.facts[f"files_{seed}"] = first
    record.facts[f"different_{seed}"] = different
    record.check(f"seed {seed}: kills that met a running process", kills, at_least=KILLS)
    record.check(f"seed {seed}: files that differ, of {len(first)}", len(different), at_most=0)
    for folder in (straight, killed):
        shutil.rmtree(folder)


def start(
    arguments: argparse.Namespace, out: Path, kill_after: float | None = None
) -> tuple[float, str | None]:
    """Run to the end, or to the kill; seconds, and the newest event before a kill (None when it
    ended before).
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
    """Stage and step of the newest progress line."""
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
