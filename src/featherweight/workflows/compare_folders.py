"""The shell's `compare`: several models side by side, on the same text, tasks and machine.

    OUT/results.json              the figures with their intervals, and the place of every model
    OUT/report.html               the same for people
    OUT/items/MODEL/TASK.jsonl    one row for each example of a task

The original answers the text once. Its logits lie in OUT.partial/work/ until every other model was
compared with them, so that one model at a time is in memory; then they are deleted. Tasks and speed
follow. The quality of a model, its tasks and a round of speeds are units of the journal, and the
same command continues behind the last of them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..base import machine
from ..base.events import Listener, send_to, silent
from ..base.ledger import bpw_file
from ..base.run_folder import RunFolder, is_finished
from ..evaluation.ranking import Measure
from ..evaluation.task_summary import LEVEL, RESAMPLES
from ..interchange.source import Source
from ..models.answers import Full
from ..quantization.evidence.comparison_page import comparison_page
from ..quantization.evidence.results import load_results, write_results
from ..reporting import write_page
from .comparison import Comparison, SpeedSettings, TaskSettings, TextSettings, for_model
from .comparison_quality import measure_qualities
from .comparison_speed import extreme_loads, measure_speeds, summarize_speed
from .evaluate_tasks import ITEMS, TaskRun, answer_tasks, default_name, read_rows, rows_file
from .file_facts import file_facts
from .published import published_size

DEFAULT_FOLDER = Path("comparisons")


def compare_folders(
    models: Sequence[str | Path],
    *,
    against: str | Path | None = None,
    text: TextSettings | None = None,
    tasks: TaskSettings | None = None,
    speed: SpeedSettings | None = None,
    answers: Full | None = None,
    runtime: str = "auto",
    out: Path | None = None,
    fresh: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> tuple[dict[str, Any], Path]:
    """Compare `models`; returns the content of results.json, and its folder.

    Args: models, aliases, folders, GGUF files or hub ids, of which the first is the original;
    against, another original; text, tasks and speed, what is measured (None: the usual text, no
    tasks, no speed); answers, how the original's logits are kept (None: in float32, exactly);
    runtime, the engine of tasks and speed as in `open_engine` (quality is that of PyTorch's
    forward); out, the folder to make (None: one in `comparisons/`, named by original and recipe);
    fresh, forget an unfinished comparison; overwrite, replace a finished one. Raises as
    `Comparison.of`, and PreflightRefused when the disk is too small.
    """
    comparison = Comparison.of(
        models,
        against,
        text or TextSettings(),
        tasks or TaskSettings(),
        speed,
        answers or Full("float32"),
        runtime,
        listener,
    )
    recipe = comparison.recipe()
    original = comparison.sources[comparison.original]
    folder = out or DEFAULT_FOLDER / default_name(original, recipe)
    if not overwrite and not fresh and is_finished(folder, recipe):
        return dict(load_results(folder)), folder
    if fresh or not folder.with_name(folder.name + ".partial").exists():
        comparison.check_disk(folder, listener)
    with RunFolder(folder, recipe, fresh=fresh, overwrite=overwrite) as run:
        results = _run(run, comparison, send_to(run.listener, listener))
        write_results(results, run.folder)
        write_page(comparison_page(results), run.folder)
        run.publish()
    return results, folder


def _run(run: RunFolder, comparison: Comparison, listener: Listener) -> dict[str, Any]:
    """Measure everything that is not in the journal, and return the content of results.json."""
    qualities = measure_qualities(run, comparison, listener)
    tasks = {
        name: _tasks(run, comparison, name, for_model(name, listener))
        for name in comparison.sources
    }
    speeds = measure_speeds(run, comparison, listener)
    text = next(iter(qualities.values()))["quality"]["text"]
    entries = []
    for name, source in comparison.sources.items():
        quality = {key: value for key, value in qualities[name]["quality"].items() if key != "text"}
        entry = {
            "name": name,
            "is_original": name == comparison.original,
            "fingerprint": source.fingerprint,
            "size": _size(source),
            "quality": quality | {"text": text},
            "kl_tail": qualities[name]["kl_tail"],
            "seconds": {"quality": qualities[name]["seconds"]},
        }
        if comparison.task_runs:
            entry |= {key: tasks[name][key] for key in ("engine", "tasks")}
            entry["seconds"]["tasks"] = tasks[name]["seconds"]
        if speeds:
            entry["speed"] = summarize_speed(speeds, name)
        entries.append(entry)
    return {
        "original": comparison.original,
        "models": entries,
        "measures": [measure.entry() for measure in _measures(run, comparison, qualities, speeds)],
        "text": text,
        "level": LEVEL,
        "resamples": RESAMPLES,
        "answers": {"dtype": comparison.answers.dtype, "bytes": comparison.answers_bytes},
        "speed": comparison.speed and {**vars(comparison.speed), "load": extreme_loads(speeds)},
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def _tasks(run: RunFolder, comparison: Comparison, name: str, listener: Listener) -> dict[str, Any]:
    """The entries "engine", "tasks" and "seconds" of one model; empty without tasks."""
    if not comparison.task_runs:
        return {}
    source = comparison.sources[name]
    record = run.done(f"tasks {name}", source.fingerprint)
    if record is None:
        start = time.monotonic()
        folder = _items_folder(run, name)
        record = answer_tasks(source, comparison.task_runs, folder, comparison.runtime, listener)
        record["seconds"] = round(time.monotonic() - start, 2)
        run.finish_unit(f"tasks {name}", source.fingerprint, None, record)
    return record


def _items_folder(run: RunFolder, name: str) -> Path:
    return run.folder / ITEMS / quote(name, safe=" ")


def _size(source: Source) -> dict[str, Any]:
    """Bytes and bits a weight: of the files of a packed folder, else of the model as it was
    published, with its dtype.
    """
    if source.is_packed:
        return {**file_facts(source.path), "dtype": None}
    dtype, file_bytes = published_size(source)
    bits = bpw_file(file_bytes, source.anatomy.num_parameters)
    return {"file_bytes": file_bytes, "bits": bits, "dtype": dtype}


def _measures(
    run: RunFolder,
    comparison: Comparison,
    qualities: Mapping[str, Mapping[str, Any]],
    rounds: Sequence[Mapping[str, Any]],
) -> list[Measure]:
    """What models are ranked by. The original takes no place by the distance from itself."""
    names = list(comparison.sources)
    windows = {name: qualities[name]["windows"] for name in names}
    light_names = [name for name in names if name != comparison.original]

    def of_windows(key: str, names: Sequence[str]) -> dict[str, list[float]]:
        return {name: windows[name][key] for name in names}

    measures = [
        Measure("KL", "windows", of_windows("kl", light_names), prefers_low=True),
        Measure("top-1 agreement", "windows", of_windows("top1", light_names)),
        Measure("perplexity", "windows", of_windows("loss", names), prefers_low=True, is_log=True),
    ]
    for task_run in comparison.task_runs:
        scores = {name: _scores(_items_folder(run, name), task_run) for name in names}
        measures.append(Measure(task_run.task.name, "examples", scores))
    if rounds:
        decode = {name: [math.log(row[name]["decode"]) for row in rounds] for name in names}
        measures.append(Measure("tokens a second", "rounds", decode, is_log=True))
    return measures


def _scores(folder: Path, run: TaskRun) -> list[float]:
    """The accuracy of every example in order; NaN for an answer that could not be graded."""
    rows = {row["index"]: row["scores"]["acc"] for row in read_rows(rows_file(folder, run))}
    scores = [rows[index] for index in range(len(run.examples))]
    return [math.nan if score is None else float(score) for score in scores]
