"""The shell's `evaluate --tasks`: a model answers the examples of tasks, and is graded.

    OUT/results.json         the figures with their intervals, and how prompts were written
    OUT/items/TASK.jsonl     one row for each example, in order
    OUT/report.html          the same for people

The work lies in OUT.partial/ until it is finished. Every row is written as soon as it is known, and
the same command continues behind the last one. All task files are read before the model is loaded.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from ..base import machine
from ..base.errors import UsageError
from ..base.events import Listener, send_to, silent, track
from ..base.files import disk_full, is_disk_full, sha256, write_atomic
from ..base.run_folder import RunFolder, is_finished
from ..data.tasks import BY_NAME, Task, TaskExample, files_of, find_tasks, settings_of
from ..evaluation.task_prompts import PromptWriter
from ..evaluation.task_rows import Row, task_rows
from ..evaluation.task_summary import summarize_task
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer
from ..interchange.source import Source
from ..quantization.evidence.results import load_results, write_results
from ..quantization.evidence.task_chapters import task_page
from ..reporting import write_page
from .engines import open_engine

ITEMS = "items"
DEFAULT_FOLDER = Path("evaluations")


@dataclass(frozen=True)
class TaskRun:
    """One task of an evaluation: its examples, and whether they go through the chat template."""

    task: Task
    examples: Sequence[TaskExample]
    chat: bool


def evaluate_tasks(
    model: str | Path,
    tasks: str,
    *,
    items: int | None = None,
    task_data: Path | None = None,
    chat: bool | None = None,
    runtime: str = "auto",
    out: Path | None = None,
    fresh: bool = False,
    overwrite: bool = False,
    record: bool = False,
    listener: Listener = silent,
) -> tuple[dict[str, Any], Path]:
    """Evaluate `model` on tasks; returns the content of results.json, and its folder.

    Args: tasks, as `find_tasks` reads them; items, the first examples of each (None: all);
    task_data, the folder of their files; chat, through the chat template (None: for tasks that are
    messages to an assistant, where the model has one); runtime, as in `open_engine`; out, the
    folder to make (None: one in `evaluations/`, named by model and recipe); fresh, forget an
    unfinished evaluation; overwrite, replace a finished one; record, write the figures into
    results.json of the packed folder `model`, and make its page and model card again.
    Raises UsageError for unknown tasks and impossible settings, BadInput for a model or a file that
    cannot be used.
    """
    runs = read_tasks(tasks, items, task_data)
    source = Source.find(model, listener)
    runs = choose_form(runs, chat, check_template(source, chat))
    if record:
        load_results(source.path)
    recipe = _recipe(source, runs, runtime)
    folder = out or DEFAULT_FOLDER / default_name(source, recipe)
    if not overwrite and not fresh and is_finished(folder, recipe):
        results = dict(load_results(folder))
    else:
        with RunFolder(folder, recipe, fresh=fresh, overwrite=overwrite) as run:
            results = _run(run, source, runs, runtime, listener)
            write_results(results, run.folder)
            write_page(task_page(results), run.folder)
            run.publish()
    if record:
        from . import evidence  # imports torch

        evidence.record(source.path, {"tasks": results["tasks"]})
    return results, folder


def read_tasks(tasks: str, items: int | None, task_data: Path | None) -> list[TaskRun]:
    """The tasks with their first `items` examples (None: all), their prompts as plain text.

    Raises UsageError and BadInput as `find_tasks` and `Task.examples`.
    """
    if items is not None and items < 1:
        raise UsageError(f"items={items}: at least 1")
    found_tasks = find_tasks(tasks, BY_NAME, task_data)
    return [TaskRun(task, list(islice(task.examples(), items)), False) for task in found_tasks]


def choose_form(runs: Sequence[TaskRun], chat: bool | None, has_template: bool) -> list[TaskRun]:
    """The runs with their prompts in the chat template, or not: as `chat` says, or (None) where a
    task's prompts are messages to an assistant and the model has a template.
    """
    return [
        replace(run, chat=run.task.is_message and has_template if chat is None else chat)
        for run in runs
    ]


def _recipe(source: Source, runs: Sequence[TaskRun], runtime: str) -> dict[str, Any]:
    """Everything that the rows depend on."""
    return {
        "model": source.display_name,
        "fingerprint": source.fingerprint,
        "runtime": runtime,
        "tasks": describe_runs(runs),
    }


def describe_runs(runs: Sequence[TaskRun]) -> dict[str, Any]:
    """What the rows of the tasks depend on beside model and engine, for a recipe."""
    return {
        run.task.name: {
            "settings": settings_of(run.task),
            "files": {name: sha256(path) for name, path in files_of(run.task).items()},
            "items": len(run.examples),
            "chat": run.chat,
        }
        for run in runs
    }


def check_template(source: Source, chat: bool | None) -> bool:
    """Whether the model has a chat template. Raises UsageError when `chat` wants one in vain."""
    has_template = ChatTokenizer.open(source.path).has_template
    if chat and not has_template:
        raise UsageError(f"{source.display_name} has no chat template; evaluate it with --raw")
    return has_template


def default_name(source: Source, recipe: Mapping[str, Any]) -> str:
    """The folder of an evaluation that got no name: the model's, and a hash of the recipe."""
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    return f"{source.path.name}-{digest[:8]}"


def _run(
    run: RunFolder, source: Source, runs: Sequence[TaskRun], runtime: str, listener: Listener
) -> dict[str, Any]:
    """Answer all examples, and return the content of results.json."""
    start = time.monotonic()
    send = send_to(run.listener, listener)
    answers = answer_tasks(source, runs, run.folder / ITEMS, runtime, send)
    return {
        "model": {"name": source.display_name, "fingerprint": source.fingerprint},
        **answers,
        "seconds": {"tasks": round(time.monotonic() - start, 2)},
        "machine": machine.describe(),
        "versions": machine.versions(),
    }


def answer_tasks(
    source: Source, runs: Sequence[TaskRun], folder: Path, runtime: str, listener: Listener
) -> dict[str, Any]:
    """Let a model answer all examples, and return the entries "engine" and "tasks" of results.json.

    folder: of the rows, one file a task; those that are there already are not answered again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    engine, tokenizer = open_engine(source, runtime, listener=listener)
    try:
        entries = []
        for task_run in runs:
            path = rows_file(folder, task_run)
            rows = _answer(task_run, path, engine, tokenizer, listener)
            writer = PromptWriter(tokenizer, task_run.task, task_run.chat)
            protocol = writer.describe(task_run.examples[0])
            entries.append(summarize_task(task_run.task, rows) | protocol)
        engine_facts = {"description": engine.description, "fingerprint": engine.fingerprint}
    finally:
        engine.close()
    return {"engine": engine_facts, "tasks": entries}


def rows_file(folder: Path, run: TaskRun) -> Path:
    """The file of a task's rows in `folder`."""
    return folder / f"{run.task.name}.jsonl"


def _answer(
    run: TaskRun, path: Path, engine: Engine, tokenizer: ChatTokenizer, listener: Listener
) -> list[Row]:
    """All rows of a task. Those in the file at `path` are taken from it, the others are added."""
    rows = {row["index"]: row for row in read_rows(path) if row["index"] < len(run.examples)}
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows.values()))
    new_rows = track(
        task_rows(run.task, run.examples, engine, tokenizer, chat=run.chat, skip=rows.keys()),
        run.task.name,
        len(run.examples),
        listener,
        done=len(rows),
    )
    with open(path, "a", encoding="utf-8") as file:
        for row in new_rows:
            rows[row["index"]] = row
            line = json.dumps(row) + "\n"
            try:
                file.write(line)
                file.flush()
            except OSError as error:
                raise disk_full(path, len(line)) if is_disk_full(error) else error from error
    return [rows[index] for index in range(len(run.examples))]


def read_rows(path: Path) -> Iterator[Row]:
    """The complete rows of an earlier attempt; a kill may have cut the last one."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("index"), int) and "scores" in row:
            yield row
