"""Measures the speed of llama.cpp for comparison: with its program `llama-bench` if it is
installed, else with the Python package `llama_cpp`.

`FEATHERWEIGHT_LLAMA_BENCH` names the program; otherwise it is searched on PATH. It runs once in
each round with one repetition, so that its rounds can alternate with ours. `llama-bench` runs a
warm-up first, and does not sample tokens.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from abc import ABC, abstractmethod
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ..base.errors import BadInput, UsageError
from .speed import Speed

VARIABLE = "FEATHERWEIGHT_LLAMA_BENCH"


class Peer(ABC):
    """Abstract base of other programs that run GGUF files."""

    description: str  # the name and version of the program, for users

    @abstractmethod
    def measure(self, file: Path, prompt: int, tokens: int, threads: int) -> Speed:
        """Measure one round of `file`, as `speed.measure_speed` does for an engine.

        Args: prompt, the number of tokens of the prefill; tokens, the number of tokens that are
        decoded; threads, their number. Raises BadInput when the program cannot run `file`,
        UsageError when the program cannot be started.
        """

    def close(self) -> None:
        """Release the memory."""
        return


def find_peer() -> Peer:
    """The llama.cpp that is installed on this machine.

    Raises UsageError, which says how to install it, when there is none.
    """
    name = os.environ.get(VARIABLE)
    program = shutil.which(name or "llama-bench")
    if program is not None:
        return LlamaBench(Path(program))
    if name:
        raise UsageError(f"{VARIABLE}={name} is not a program that can be run")
    if find_spec("llama_cpp") is not None:
        return LlamaPackage()
    raise UsageError(
        f"llama.cpp is not installed: put llama-bench on PATH, name it in {VARIABLE}, "
        "or pip install llama-cpp-python"
    )


class LlamaBench(Peer):
    """The program `llama-bench`."""

    def __init__(self, program: Path) -> None:
        self.program, self.description = program, "llama-bench"

    def measure(self, file: Path, prompt: int, tokens: int, threads: int) -> Speed:
        options = {"-m": file, "-t": threads, "-p": prompt, "-n": tokens, "-r": 1, "-o": "json"}
        command = [str(self.program), *(str(word) for pair in options.items() for word in pair)]
        try:
            process = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UsageError(f"{self.program} cannot be run: {error.strerror}") from error
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise BadInput(f"llama-bench cannot run {file}: {last_line[:300]}")
        try:
            rows: list[dict[str, Any]] = json.loads(process.stdout)
            prefill = next(
                float(row["avg_ts"]) for row in rows if row["n_prompt"] and not row["n_gen"]
            )
            decode = next(
                float(row["avg_ts"]) for row in rows if row["n_gen"] and not row["n_prompt"]
            )
            commit = rows[0].get("build_commit", "")
        except (ValueError, KeyError, TypeError, StopIteration, IndexError) as error:
            raise BadInput(
                f"{self.program} printed something else than the JSON of llama-bench"
            ) from error
        self.description = f"llama.cpp {commit}".strip()
        return Speed(prefill, decode, prompt / prefill)


class LlamaPackage(Peer):
    """The package `llama_cpp`, in this process; the file stays open between rounds."""

    def __init__(self) -> None:
        import llama_cpp

        self.description = f"llama-cpp-python {llama_cpp.__version__}"
        self._key: tuple[Path, int, int] | None = None
        self._model: Any = None

    def measure(self, file: Path, prompt: int, tokens: int, threads: int) -> Speed:
        model = self._open(file, max(prompt, tokens), threads)
        ids = np.random.default_rng(0).integers(0, model.n_vocab(), max(prompt, tokens)).tolist()
        model.reset()
        start = time.perf_counter()
        model.eval(ids[:prompt])
        first_token = time.perf_counter() - start
        model.reset()
        start = time.perf_counter()
        for token in ids[:tokens]:
            model.eval([token])
        return Speed(prompt / first_token, tokens / (time.perf_counter() - start), first_token)

    def close(self) -> None:
        if self._model is not None:
            self._model.close()
        self._model = self._key = None

    def _open(self, file: Path, context: int, threads: int) -> Any:
        if self._key != (file, context, threads):
            self.close()
            from llama_cpp import Llama

            try:
                self._model = Llama(
                    str(file),
                    n_ctx=context,
                    n_threads=threads,
                    n_threads_batch=threads,
                    verbose=False,
                )
            except (ValueError, RuntimeError) as error:
                raise BadInput(f"llama.cpp cannot run {file}: {error}") from error
            self._key = (file, context, threads)
            self._model.eval([0])  # the first call allocates buffers
        return self._model
