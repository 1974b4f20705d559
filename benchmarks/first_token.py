"""Measures the time from the start of a process to the first token, and the memory of a model.

The time is that of a whole process of `fw generate` on a packed SmolLM2, from its start to the
first byte on its stdout. Without `--folder` the model is first quantized to 2 bits with a 4-bit
head. An unmeasured first run brings the files into the page cache. The memory is the growth of a
process between two states: after importing the native engine, and after it has opened the model,
computed a prompt and decoded some tokens. It is compared with the size of the file plus the keys
and values of the session. The tokenizer is not part of the file and has a row of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import Record, main, new_record, parser
from folders import quantized_folder

from featherweight.base import machine
from featherweight.base.statistics import bootstrap_mean

SECONDS, GROWTH = 1.0, 1.15
PROMPT, TOKENS = 256, 64
MEMORY = """
import json, sys
from featherweight.base.machine import resident_memory_bytes
from featherweight.inference.text.tokenizer import ChatTokenizer
from featherweight.inference.native.reader import open_runtime
from featherweight.ops import library
library.library()
folder, prompt, tokens = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
start = resident_memory_bytes()
engine = open_runtime(folder, threads=2)
opened = resident_memory_bytes()
session = engine.session(prompt + tokens)
ids = [i * 37 % engine.vocab_size for i in range(prompt)]
token = int(engine.forward(session, ids)[0].argmax())
for _ in range(tokens):
    token = int(engine.step([session], [token])[0].argmax())
end = resident_memory_bytes()
tokenizer = ChatTokenizer.open(folder)
tokenizer.encode("a word")
print(json.dumps({
    "empty": start,
    "opened": opened - start,
    "growth": end - start,
    "cache": session.num_bytes,
    "tokenizer": resident_memory_bytes() - end,
    "torch": "torch" in sys.modules,
}))
"""


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("first token and memory", arguments, num_seeds=1)
    folder = arguments.folder or quantized_folder("trellis2", "Trellis(bits=2)", 2)
    runs = 3 if arguments.quick else 10
    record.facts |= {"folder": folder.name, "runs": runs}
    first_token(folder)
    times = [first_token(folder) for _ in range(runs)]
    mean = bootstrap_mean(times)
    record.add(
        what="seconds to first token",
        value=mean.mean,
        low=mean.low,
        high=mean.high,
        load=machine.load_average(),
    )
    interval = f"[{mean.low:.2f}, {mean.high:.2f}], best {min(times):.2f}"
    claim = f"seconds from process start to first token {interval}"
    record.check(claim, mean.mean, at_most=SECONDS)
    memory(record, folder, runs)
    return record


def first_token(folder: Path) -> float:
    """Seconds from the start of a process to the first byte of its answer."""
    options = ["--max-tokens", "4", "--temperature", "0", "--runtime", "native"]
    command = [
        sys.executable,
        "-m",
        "featherweight",
        "generate",
        str(folder),
        "Tell me a story.",
        *options,
    ]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    first = process.stdout.read(1)
    seconds = time.perf_counter() - start
    _, errors = process.communicate()
    if process.returncode or not first:
        raise SystemExit(errors.decode(errors="replace"))
    return seconds


def memory(record: Record, folder: Path, runs: int) -> None:
    """Add rows and checks for the growth of the process's memory."""
    command = [sys.executable, "-c", MEMORY, str(folder), str(PROMPT), str(TOKENS)]
    process_memory: list[dict[str, Any]] = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(runs)
    ]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for part in ("empty", "opened", "growth", "cache", "tokenizer"):
        mean = bootstrap_mean([run[part] / 1e6 for run in process_memory])
        record.add(what=f"MB {part}", value=mean.mean, low=mean.low, high=mean.high)
    record.add(what="MB of the file", value=size / 1e6)
    share = bootstrap_mean([run["growth"] / (size + run["cache"]) for run in process_memory])
    claim = f"memory taken over file plus keys and values of {PROMPT + TOKENS} tokens "
    claim += f"[{share.low:.3f}, {share.high:.3f}]"
    record.check(claim, share.mean, at_most=GROWTH)
    record.check(
        "processes that imported torch",
        float(sum(run["torch"] for run in process_memory)),
        at_most=0,
    )


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument("--folder", type=Path, help="a packed folder; without one, it is made first")
    main(run, flags)
