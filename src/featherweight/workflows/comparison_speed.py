"""The speed of compared models, in rounds in which each of them has its turn.

An engine is opened for its turn and closed after it, so that one model at a time is in memory. A
round is a unit of the journal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

from ..base import machine
from ..base.events import Event, Listener
from ..base.run_folder import RunFolder
from ..base.statistics import bootstrap_mean
from ..profiling import measure_speed
from .comparison import Comparison
from .engines import open_weights

WARM_TOKENS = 16  # of the unmeasured run that reads the files' pages and starts the threads


def measure_speeds(
    run: RunFolder, comparison: Comparison, listener: Listener
) -> list[dict[str, dict[str, Any]]]:
    """One mapping for each round: model -> engine, load average and speed. In every round each
    model has its turn, so that whatever slows the machine for a while slows all of them.
    """
    if comparison.speed is None:
        return []
    fingerprint = " ".join(source.fingerprint for source in comparison.sources.values())
    rounds = []
    total = comparison.speed.rounds * len(comparison.sources)
    for index in range(comparison.speed.rounds):
        record = run.done(f"speed {index}", fingerprint)
        if record is None:
            record = {}
            # Every other round goes backwards: a steady drift then favours nobody.
            for name in list(comparison.sources)[:: 1 if index % 2 == 0 else -1]:
                num_done = index * len(comparison.sources) + len(record)
                listener(Event("speed", num_done, total, message=name))
                record[name] = _measure_speed(comparison, name, comparison.speed.tokens, index)
            run.finish_unit(f"speed {index}", fingerprint, None, record)
        rounds.append(record)
    listener(Event("speed", total, total))
    return rounds


def _measure_speed(comparison: Comparison, name: str, tokens: int, seed: int) -> dict[str, Any]:
    source = comparison.sources[name]
    with closing(open_weights(source, comparison.runtime)) as engine:
        measure_speed(engine, min(tokens, WARM_TOKENS), 1)
        load = machine.load_average()
        speed = measure_speed(engine, tokens, tokens, seed)
        return {"engine": engine.description, "load": round(load, 2), **vars(speed)}


def summarize_speed(rounds: Sequence[Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Tokens a second of prompt and answer with their intervals over rounds."""
    return {
        "engine": rounds[0][name]["engine"],
        "rounds": [{key: row[name][key] for key in ("prefill", "decode")} for row in rounds],
        **{
            key: bootstrap_mean([row[name][key] for row in rounds]).as_dict()
            for key in ("prefill", "decode")
        },
    }


def extreme_loads(rounds: Sequence[Mapping[str, Any]]) -> list[float]:
    """The smallest and the largest load average while speed was measured."""
    loads = [entry["load"] for row in rounds for entry in row.values()]
    return [min(loads), max(loads)] if loads else []
