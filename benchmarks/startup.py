"""Measures the time of `import featherweight` and of `fw --help`.

Whole processes are timed in turns with a Python process that imports nothing. The rows have the
median, the smallest and the largest time of the rounds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

import numpy as np
from common import Record, main, new_record, parser, time_in_turns

BOUND_SECONDS = 0.3
COMMANDS = {
    "python": "pass",
    "import featherweight": "import featherweight",
    "fw --help": "import sys; sys.argv = ['fw', '--help']; "
    "from featherweight.cli import main; main()",
}


def run(arguments: argparse.Namespace) -> Record:
    record = new_record("start-up", arguments)
    rivals = {
        name: (
            lambda code=code: subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=False
            )
        )
        for name, code in COMMANDS.items()
    }
    for name, seconds in time_in_turns(rivals, 5 if arguments.quick else 15).items():
        record.add(
            what=name, seconds=float(np.median(seconds)), low=min(seconds), high=max(seconds)
        )
        if name != "python":
            record.check(
                f"{name}: median seconds", float(np.median(seconds)), at_most=BOUND_SECONDS
            )
    return record


if __name__ == "__main__":
    main(run, parser(__doc__))
