"""Runs a program that a model wrote, in a process of its own with limits.

The process is a fresh Python (`-I -S`: no user's packages, no environment) in an empty temporary
folder, with limits on processor time, memory, file sizes, open files and processes, and without
privileges to gain. It reads nothing from the caller and its output is thrown away. After
`seconds` it and all that it started are killed.

This stops accidents, not attackers: the program can still read files that the user can read, and
where the system allows no own namespace it can reach the network. Run models that you do not trust
in a container or a virtual machine.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ...base.errors import Unsupported

MEMORY_BYTES = 1 << 30
FILE_BYTES = 1 << 20
NUM_FILES = 64

# Runs in the new process before the program. Nothing of the program can lift a hard limit again.
LIMITS = """
import ctypes, os, resource, sys
def limit(name, most):
    resource.setrlimit(name, (most, most))
limit(resource.RLIMIT_CPU, {seconds})
limit(resource.RLIMIT_AS, {memory})
limit(resource.RLIMIT_FSIZE, {file})
limit(resource.RLIMIT_NOFILE, {files})
limit(resource.RLIMIT_CORE, 0)
try:
    libc = ctypes.CDLL(None)
    libc.unshare(0x10000000 | 0x40000000)  # own users and an empty network, where allowed
    libc.prctl(38, 1, 0, 0, 0)  # no new privileges
except Exception:
    pass
limit(resource.RLIMIT_NPROC, 0)
source, mark = sys.argv[1:]
del sys.argv[1:]
with open(source, encoding="utf-8") as file:
    program = file.read()
exec(compile(program, "answer.py", "exec"), {{"__name__": "answer"}})
with open(mark, "w") as file:
    file.write("passed")
os._exit(0)
"""


def run_program(program: str, seconds: float = 5.0) -> bool:
    """Whether `program` runs to its end, without an error, within `seconds`.

    A program that exits early, in whatever way, has not run to its end. Raises Unsupported where
    the system has no limits for processes (Windows).
    """
    if os.name != "posix":
        raise Unsupported("programs of a model run with limits of the system; Windows has none")
    with tempfile.TemporaryDirectory() as folder:
        source, mark = Path(folder) / "answer.py", Path(folder) / f"passed-{os.urandom(8).hex()}"
        source.write_text(program, encoding="utf-8", errors="replace")
        code = LIMITS.format(
            seconds=max(1, round(seconds)), memory=MEMORY_BYTES, file=FILE_BYTES, files=NUM_FILES
        )
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, str(source), str(mark)],
            cwd=folder,
            env={"PATH": os.defpath, "HOME": folder},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return process.returncode == 0 and mark.is_file()
