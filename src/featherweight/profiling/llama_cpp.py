"""llama.cpp as a rival: its own `llama-bench` where there is one, else the `llama_cpp` Python
package.

`FEATHERWEIGHT_LLAMA_BENCH` names the program, else it is looked for on PATH. It is run once a round
with one repetition, so that rounds can take turns; it warms up by itself and samples nothing.
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
    """Something that runs a GGUF file."""

    description: str

    @abstractmethod
    def measure(self, file: Path, prompt: int, tokens: int, threads: int) -> Speed:
        """One round, as `speed.measure_speed`. Raises BadInput when it cannot run `file`."""

    def close(self) -> None:
        """Give memory back."""
        return


def find_peer() -> Peer:
    """The llama.cpp of this machine.

    Raises UsageError, saying how to get one, when there is none.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named or "llama-bench")
    if found is not None:
        return LlamaBench(Path(found))
    if named:
        raise UsageError(f"{VARIABLE}={named} is not a program that can be run")
    if find_spec("llama_cpp") is not None:
        return LlamaPackage()
    raise UsageError(
        f"llama.cpp is not installed: put llama-bench on PATH, name it in {VARIABLE}, or pip install llama-cpp-python"
    )


class LlamaBench(Peer):
    """The program `llama-bench`."""

    def __init__(self, program: Path) -> None:
        self.program, self.description = program, "llama-bench"

    def measure(self, file: Path, prompt: int, tokens: int, threads: int) -> Speed:
        options = {"-m": file, "-t": threads, "-p": prompt, "-n": tokens, "-r": 1, "-o": "json"}
        command = [str(self.program), *(str(part) for pair in options.items() for part in pair)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, errors="replace")
        except OSError as error:
            raise UsageError(f"{self.program} cannot be run: {error.strerror}") from error
        if ran.returncode:
            last = (ran.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise BadInput(f"llama-bench cannot run {file}: {last[:300]}")
        try:
            lines: list[dict[str, Any]] = json.loads(ran.stdout)
            prefill = next(
                float(line["avg_ts"]) for line in lines if line["n_prompt"] and not line["n_gen"]
            )
            decode = next(
                float(line["avg_ts"]) for line in lines if line["n_gen"] and not line["n_prompt"]
            )
            commit = lines[0].get("build_commit", "")
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
            self._model.eval([0])  # warm up
        return self._model
