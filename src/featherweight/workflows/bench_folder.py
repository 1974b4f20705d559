"""The shell's `bench`: how fast a model folder runs here, what memory it takes, and the same of
llama.cpp in turns.

Memory is what the process grew by while it opened the model and ran it; it holds the weights
(mapped pages count once they were read), keys and values, and scratch. It is taken in the first
round, before anything else needs memory.
"""

from __future__ import annotations

import math
from contextlib import closing
from pathlib import Path
from typing import Any

from ..base import machine
from ..base.errors import BadInput, UsageError
from ..base.events import Event, Listener, silent
from ..base.statistics import bootstrap_mean
from ..inference.engine import Engine
from ..inference.native.engine import NativeEngine
from ..interchange.locating import find_folder
from ..models.config import quantization_method
from ..ops import library
from ..profiling import Speed, bytes_per_token, measure_bandwidth, measure_speed
from ..profiling.llama_cpp import Peer, find_peer
from .engines import open_weights

MAX_THREADS = 1024


def bench_folder(
    model: str,
    *,
    threads: int | None = None,
    prompt: int = 512,
    tokens: int = 128,
    rounds: int = 5,
    runtime: str = "auto",
    against_llama: Path | None = None,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Plain data for JSON: machine, load, rounds, means with intervals, memory, bandwidth, and
    llama.cpp's side.

    `against_llama`: a GGUF file that llama.cpp runs between our rounds, on as many threads. Raises
    UsageError or BadInput for what cannot be measured.
    """
    if rounds < 1 or (threads is not None and not 1 <= threads <= MAX_THREADS):
        raise UsageError(
            f"{rounds} rounds on {threads} threads: at least one round, and 1 to {MAX_THREADS} "
            "threads"
        )
    peer = None if against_llama is None else _peer(against_llama)
    folder = find_folder(model, listener)
    quantization_method(folder)
    threads = threads or library.threads()
    load = [machine.load_average()]
    before = machine.resident_memory_bytes()
    with closing(open_weights(folder, runtime, threads=threads, listener=listener)) as engine:
        ours, theirs = list[Speed](), list[Speed]()
        # Pages of the file are read and threads are started before anything is measured.
        measure_speed(engine, min(prompt, 64, engine.context), 1)
        growth = 0
        for done in range(rounds):
            listener(Event("rounds", done, rounds, message=engine.description))
            ours.append(measure_speed(engine, prompt, tokens, seed=done))
            growth = growth or machine.resident_memory_bytes() - before
            if peer is not None and against_llama is not None:
                theirs.append(peer.measure(against_llama, prompt, tokens, threads))
        listener(Event("rounds", rounds, rounds, message=engine.description))
        load.append(machine.load_average())
        found: dict[str, Any] = {
            "model": {
                "name": folder.name,
                "engine": engine.description,
                "file_bytes": _file_bytes(folder),
            },
            "machine": machine.describe(),
            "load": [round(value, 2) for value in load],
            "threads": threads,
            "prompt": prompt,
            "tokens": tokens,
            **_side(ours),
            "memory_growth_bytes": max(growth, 0),
            "bandwidth": _bandwidth(engine, threads, ours),
            "versions": machine.versions(),
        }
    if peer is not None and against_llama is not None:
        found["llama"] = _rival(peer, against_llama, ours, theirs)
        peer.close()
    return found


def _peer(file: Path) -> Peer:
    if not file.is_file():
        raise BadInput(f"{file} is not there; --against-llama takes a .gguf file")
    with open(file, "rb") as opened:
        if opened.read(4) != b"GGUF":
            raise BadInput(f"{file} is not a GGUF file")
    return find_peer()


def _side(speeds: list[Speed]) -> dict[str, Any]:
    """Means with intervals over the rounds, and the rounds themselves."""
    summary = {
        name: bootstrap_mean([getattr(s, name) for s in speeds]).as_dict()
        for name in Speed.__dataclass_fields__
    }
    return {**summary, "rounds": [vars(speed) for speed in speeds]}


def _rival(peer: Peer, file: Path, ours: list[Speed], theirs: list[Speed]) -> dict[str, Any]:
    """llama.cpp's side, and how many times as fast we are: geometric means over the rounds, paired."""
    ratios = {}
    for name in ("prefill", "decode"):
        logs = [
            math.log(getattr(a, name) / getattr(b, name)) for a, b in zip(ours, theirs, strict=True)
        ]
        ratios[name] = bootstrap_mean(logs).map(math.exp).as_dict()
    facts = {"name": file.name, "description": peer.description, "file_bytes": file.stat().st_size}
    return {**facts, **_side(theirs), "ratio": ratios}


def _bandwidth(engine: Engine, threads: int, ours: list[Speed]) -> dict[str, Any] | None:
    """Measured bytes a second and the share that decoding used; None where neither is known."""
    measured = measure_bandwidth(threads)
    if measured is None:
        return None
    found: dict[str, Any] = dict(vars(measured))
    if isinstance(engine, NativeEngine):
        size = bytes_per_token(engine.model)
        rate = bootstrap_mean([speed.decode for speed in ours]).mean
        found |= {"bytes_per_token": size, "share": size * rate / measured.bytes_per_second}
        # A model that fits the cache is not read from memory at all.
        found |= {"fits_cache": size <= measured.cache_bytes}
    return found


def _file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))
