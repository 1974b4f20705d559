"""How long from the start of a process to the first token, and what memory does a model take?

Time: whole processes, `fw generate` on a packed SmolLM2 (`--folder`; else made first, at 2 bits
with a 4-bit head), from the moment the process is asked for to the first byte on its stdout; its
files are in the page cache after one run that does not count. Memory: a process that has imported
the runtime and nothing else, against the same process after it has opened the model, read a prompt
and decoded some tokens. What it grew by is held against the file plus the keys and values of that
session; with the tokenizer, which is not part of the file, in a row of its own.
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
from folders import made

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
before = resident_memory_bytes()
engine = open_runtime(folder, threads=2)
opened = resident_memory_bytes()
session = engine.session(prompt + tokens)
token = int(engine.forward(session, [i * 37 % engine.vocab_size for i in range(prompt)])[0].argmax())
for _ in range(tokens):
    token = int(engine.step([session], [token])[0].argmax())
after = resident_memory_bytes()
text = ChatTokenizer.open(folder)
text.encode("a word")
print(json.dumps({"empty": before, "opened": opened - before, "growth": after - before, "cache": session.num_bytes,
                  "tokenizer": resident_memory_bytes() - after, "torch": "torch" in sys.modules}))
"""


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("first token and memory", arguments, num_seeds=1)
    folder = arguments.folder or made("trellis2", "Trellis(bits=2)", 2)
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
    claim = f"seconds from process start to first token [{mean.low:.2f}, {mean.high:.2f}], best {min(times):.2f}"
    record.check(claim, mean.mean, at_most=SECONDS)
    memory(record, folder, runs)
    return record


def first_token(folder: Path) -> float:
    """Seconds from asking for a process to the first byte of its answer."""
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
    """Rows and the check on what the process grew by."""
    command = [sys.executable, "-c", MEMORY, str(folder), str(PROMPT), str(TOKENS)]
    found: list[dict[str, Any]] = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(runs)
    ]
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    for what in ("empty", "opened", "growth", "cache", "tokenizer"):
        mean = bootstrap_mean([run[what] / 1e6 for run in found])
        record.add(what=f"MB {what}", value=mean.mean, low=mean.low, high=mean.high)
    record.add(what="MB of the file", value=size / 1e6)
    share = bootstrap_mean([run["growth"] / (size + run["cache"]) for run in found])
    claim = f"memory taken over file plus keys and values of {PROMPT + TOKENS} tokens [{share.low:.3f}, {share.high:.3f}]"
    record.check(claim, share.mean, at_most=GROWTH)
    record.check(
        "processes that imported torch", float(sum(run["torch"] for run in found)), at_most=0
    )


if __name__ == "__main__":
    flags = parser(__doc__)
    flags.add_argument("--folder", type=Path, help="a packed folder; without one, it is made first")
    main(run, flags)
