"""The shell's `evaluate --harness`: lm-evaluation-harness judges a model on its own tasks.

    OUT/results.json         the harness's figures by task
    OUT/samples/TASK.jsonl   what it kept of each example

Nothing is downloaded: the data of a task must be on this machine, in the cache of `datasets` or in
files that the task's YAML names. The work lies in OUT.partial/, with every answer that the model
gave, and the same command continues there.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..base import machine
from ..base.errors import BadInput, Unsupported, UsageError
from ..base.events import Listener, send_to, silent
from ..base.files import write_atomic
from ..base.run_folder import RunFolder, is_finished
from ..interchange.source import Source
from ..quantization.evidence.results import RESULTS, load_results
from .engines import open_engine
from .evaluate_tasks import DEFAULT_FOLDER, check_template, default_name

SAMPLES = "samples"


def evaluate_harness(
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
    listener: Listener = silent,
) -> tuple[dict[str, Any], Path]:
    """Let the harness judge `model`; returns the content of results.json, and its folder.

    Args: tasks, the harness's names, separated by commas; items, its limit of examples (None:
    all); task_data, a folder with YAML files of further tasks; chat, through the chat template
    (None: no); the others as in `evaluate_tasks`. Raises Unsupported when lm_eval is not installed,
    BadInput for tasks that it cannot load, UsageError and BadInput as `evaluate_tasks`.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names or (items is not None and items < 1):
        raise UsageError(f"--harness {tasks!r}, {items} items: name a task, and one item or more")
    with _offline():
        manager = _load_tasks(names, task_data)
        source = Source.find(model, listener)
        if chat:
            check_template(source, chat)
        recipe = {
            "model": source.display_name,
            "fingerprint": source.fingerprint,
            "runtime": runtime,
            "harness": {"tasks": names, "items": items, "chat": bool(chat), "version": _version()},
        }
        folder = out or DEFAULT_FOLDER / default_name(source, recipe)
        if not overwrite and not fresh and is_finished(folder, recipe):
            return dict(load_results(folder)), folder
        with RunFolder(folder, recipe, fresh=fresh, overwrite=overwrite) as run:
            results = _judge(run, source, manager, listener)
            return results, run.publish()


def _judge(run: RunFolder, source: Source, manager: Any, listener: Listener) -> dict[str, Any]:
    """Run the harness, and write figures and samples into the run's folder."""
    import lm_eval

    from ..evaluation.harness_model import HarnessModel

    start = time.monotonic()
    settings = run.recipe["harness"]
    send = send_to(run.listener, listener)
    engine, tokenizer = open_engine(source, run.recipe["runtime"], listener=send)
    try:
        judgement = lm_eval.simple_evaluate(
            model=HarnessModel(engine, tokenizer, source.display_name, send),
            tasks=settings["tasks"],
            task_manager=manager,
            limit=settings["items"],
            apply_chat_template=settings["chat"],
            use_cache=str(run.work / "answers"),
            bootstrap_iters=1000,
        )
    finally:
        engine.close()
    assert judgement is not None  # only processes other than the first get None
    (run.folder / SAMPLES).mkdir(exist_ok=True)
    for name, samples in (judgement.get("samples") or {}).items():
        lines = "".join(json.dumps(sample, default=str) + "\n" for sample in samples)
        write_atomic(run.folder / SAMPLES / f"{name}.jsonl", lines)
    results = {
        "model": {"name": source.display_name, "fingerprint": source.fingerprint},
        "engine": {"description": engine.description, "fingerprint": engine.fingerprint},
        "harness": {
            **settings,
            "chat_template": tokenizer.template_digest if settings["chat"] else None,
            "results": _figures(judgement["results"]),
            "counts": judgement.get("n-samples"),
        },
        "seconds": {"harness": round(time.monotonic() - start, 2)},
        "machine": machine.describe(),
        "versions": machine.versions(),
    }
    write_atomic(run.folder / RESULTS, json.dumps(results, indent=1, default=str) + "\n")
    return results


def _figures(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The numbers of each task, as plain floats."""
    figures: dict[str, dict[str, float]] = {}
    for task, entries in results.items():
        figures[task] = {}
        for name, value in entries.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                figures[task][name] = float(value)
    return figures


def _load_tasks(names: list[str], folder: Path | None) -> Any:
    """The harness's task manager, after it has loaded the tasks and their data once."""
    if folder is not None and not folder.is_dir():
        raise BadInput(f"--task-data {folder} is no folder")
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise Unsupported(
            f"lm-evaluation-harness is not installed ({error}); "
            "pip install 'featherweight[eval]', or evaluate --tasks, which needs no other package"
        ) from error
    try:
        manager = TaskManager(include_path=None if folder is None else str(folder))
        manager.load(names)
    except Exception as error:  # data sets and YAML files fail in every way
        raise BadInput(
            f"lm-evaluation-harness cannot load {', '.join(names)} without a network: "
            f"{str(error)[:300]}; give --task-data FOLDER with YAML files that name local data"
        ) from error
    return manager


@contextmanager
def _offline() -> Iterator[None]:
    """Inside, the libraries of the hub ask nobody, and the harness logs its warnings only."""
    changes = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    saved_environment = {name: os.environ.get(name) for name in changes}
    level = logging.getLogger("lm_eval").level
    os.environ.update(changes)
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    try:
        yield
    finally:
        logging.getLogger("lm_eval").setLevel(level)
        for name, value in saved_environment.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _version() -> str:
    from importlib.metadata import version

    return version("lm_eval")
