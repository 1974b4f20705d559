"""The shell's `bench`: the speed and the memory of a model on this machine, and those of llama.cpp
in alternating rounds.

The reported memory is the growth of the process's memory while it opens the model and runs it: the
weights (mapped pages count once they have been read), keys and values, and scratch buffers. It is
measured in the first round, before anything else takes memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from ..base import machine
from ..base.errors import BadInput, UsageError
from ..base.events import Event, Listener, silent
from ..base.statistics import bootstrap_mean
from ..inference.engine import Engine
from ..inference.native.engine import NativeEngine
from ..interchange.source import Source
from ..ops import library
from ..profiling import Speed, bytes_per_token, measure_bandwidth, measure_speed
from ..profiling.llama_cpp import Peer, find_peer
from .engines import open_weights

MAX_THREADS = 1024


def bench_folder(
    model: str | Path,
    *,
    threads: int | None = None,
    prompt: int = 512,
    tokens: int = 128,
    rounds: int = 5,
    runtime: str = "auto",
    against_llama: Path | None = None,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Measure the speed of a model. Returns plain data for JSON: machine, load, rounds, means with
    intervals, memory, bandwidth, and the figures of llama.cpp under "llama".

    Args: model, an alias, folder, GGUF file or hub id; threads, None for the library's default;
    prompt and tokens, the tokens of the prefill and of decoding in each of `rounds` rounds; runtime
    as in `open_engine`; against_llama, a GGUF file that llama.cpp runs between our rounds on as
    many threads. Raises UsageError or BadInput for settings, models and files that cannot be used.
    """
    if rounds < 1 or (threads is not None and not 1 <= threads <= MAX_THREADS):
        raise UsageError(
            f"{rounds} rounds on {threads} threads: at least one round, "
            f"and 1 to {MAX_THREADS} threads"
        )
    peer = None if against_llama is None else _find_peer(against_llama)
    source = Source.find(model, listener)
    threads = threads or library.threads()
    load = [machine.load_average()]
    start_memory = machine.resident_memory_bytes()
    with closing(open_weights(source, runtime, threads=threads, listener=listener)) as engine:
        speeds, peer_speeds = list[Speed](), list[Speed]()
        # This unmeasured run reads the pages of the files and starts the threads.
        measure_speed(engine, min(prompt, 64, engine.context), 1)
        memory_growth = 0
        for index in _count_rounds(rounds, engine, listener):
            speeds.append(measure_speed(engine, prompt, tokens, seed=index))
            memory_growth = memory_growth or machine.resident_memory_bytes() - start_memory
            if peer is not None and against_llama is not None:
                peer_speeds.append(peer.measure(against_llama, prompt, tokens, threads))
        load.append(machine.load_average())
        results: dict[str, Any] = {
            "model": {
                "name": source.path.name,
                "engine": engine.description,
                "file_bytes": _file_bytes(source.path),
            },
            "machine": machine.describe(),
            "load": [round(value, 2) for value in load],
            "threads": threads,
            "prompt": prompt,
            "tokens": tokens,
            **_summary(speeds),
            "memory_growth_bytes": max(memory_growth, 0),
            "bandwidth": _bandwidth(engine, threads, speeds),
            "versions": machine.versions(),
        }
    if peer is not None and against_llama is not None:
        results["llama"] = _compare(peer, against_llama, speeds, peer_speeds)
        peer.close()
    return results


def _count_rounds(rounds: int, engine: Engine, listener: Listener) -> Iterator[int]:
    """Yield the index of each round, and send an event for each."""
    for index in range(rounds):
        listener(Event("rounds", index, rounds, message=engine.description))
        yield index
    listener(Event("rounds", rounds, rounds, message=engine.description))


def _find_peer(file: Path) -> Peer:
    """llama.cpp, after a check that `file` is a GGUF file."""
    if not file.is_file():
        raise BadInput(f"{file} is not there; --against-llama takes a .gguf file")
    with open(file, "rb") as stream:
        if stream.read(4) != b"GGUF":
            raise BadInput(f"{file} is not a GGUF file")
    return find_peer()


def _summary(speeds: list[Speed]) -> dict[str, Any]:
    """The mean of each figure with its interval over the rounds, and the figures of each round."""
    means = {
        name: bootstrap_mean([getattr(speed, name) for speed in speeds]).as_dict()
        for name in Speed.__dataclass_fields__
    }
    return {**means, "rounds": [vars(speed) for speed in speeds]}


def _compare(
    peer: Peer, file: Path, speeds: list[Speed], peer_speeds: list[Speed]
) -> dict[str, Any]:
    """The figures of llama.cpp, and the ratios of our speeds to its speeds: geometric means over
    pairs of rounds.
    """
    ratios = {}
    for name in ("prefill", "decode"):
        logs = [
            math.log(getattr(a, name) / getattr(b, name))
            for a, b in zip(speeds, peer_speeds, strict=True)
        ]
        ratios[name] = bootstrap_mean(logs).map(math.exp).as_dict()
    facts = {"name": file.name, "description": peer.description, "file_bytes": file.stat().st_size}
    return {**facts, **_summary(peer_speeds), "ratio": ratios}


def _bandwidth(engine: Engine, threads: int, speeds: list[Speed]) -> dict[str, Any] | None:
    """The bandwidth of the memory and the share of it that decoding used; None when it cannot be
    measured.
    """
    bandwidth = measure_bandwidth(threads)
    if bandwidth is None:
        return None
    figures: dict[str, Any] = dict(vars(bandwidth))
    if isinstance(engine, NativeEngine):
        size = bytes_per_token(engine.model)
        rate = bootstrap_mean([speed.decode for speed in speeds]).mean
        figures |= {"bytes_per_token": size, "share": size * rate / bandwidth.bytes_per_second}
        # A model that fits the cache is read from the cache, not from memory.
        figures |= {"fits_cache": size <= bandwidth.cache_bytes}
    return figures


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
