"""`fw serve` as a process of its own, for benchmarks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serve(folder: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server of a model folder: its process and its URL. It is stopped at the end."""
    command = [sys.executable, "-m", "featherweight", "serve", str(folder), "--port", "0"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = next((line.split()[0] for line in process.stdout if line.startswith("http://")), None)
        if url is None:
            raise SystemExit("the server did not start")
        yield process, url
    finally:
        process.terminate()
        process.wait(30)
