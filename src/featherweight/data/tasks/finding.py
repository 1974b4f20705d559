"""Tasks by name, with their files: `arc_easy=FILE, gsm8k(shots=5)` and a folder in which files are
found.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...base import spec
from ...base.errors import BadInput, UsageError
from .base import Task

ENDINGS = (".jsonl", ".jsonl.gz")
# NAME(SETTINGS)=FILE, where settings may hold one level of parentheses (a tuple).
PIECE = re.compile(
    r"\s*(?P<name>\w+)(?P<settings>\((?:[^()]|\([^()]*\))*\))?(?:=(?P<file>[^,]*))?\s*(?:,|$)"
)


def find_tasks(
    text: str, namespace: Mapping[str, type[Task]], folder: Path | None = None
) -> list[Task]:
    """The tasks that `text` names, each with its file.

    Args: text, names separated by commas, each maybe with settings in parentheses and "=FILE";
    namespace, the tasks by name; folder, where files are looked for, also in its subfolders, by
    the task's `file_names`. Raises UsageError for an unknown task or setting, BadInput for a file
    that is not there.
    """
    tasks: list[Task] = []
    position = 0
    while position < len(text):
        match = PIECE.match(text, position)
        if match is None:
            raise UsageError(
                f"--tasks {text[position:]!r}: write names, separated by commas, "
                "like arc_easy=FILE,gsm8k(shots=5)"
            )
        tasks.append(_find_task(match, namespace, folder))
        position = match.end()
    if not tasks:
        raise UsageError(f"no task; {spec.nearest('', namespace)}")
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"task {name} is named twice")
    return tasks


def settings_of(task: Task) -> dict[str, Any]:
    """The fields of `task` that are not files, as they determine its results."""
    return {name: v for name, v in _fields(task).items() if not _is_file(name)}


def files_of(task: Task) -> dict[str, Path]:
    """The files of `task` by field."""
    return {n: path for n, path in _fields(task).items() if _is_file(n) and path is not None}


def _fields(task: Any) -> dict[str, Any]:
    """The fields of a task, which is a dataclass."""
    return {field.name: getattr(task, field.name) for field in dataclasses.fields(task)}


def _find_task(
    match: re.Match[str], namespace: Mapping[str, type[Task]], folder: Path | None
) -> Any:
    name = match["name"]
    if name not in namespace:
        raise UsageError(f"no task is called {name!r}; {spec.nearest(name, namespace)}")
    task_class = namespace[name]
    if not task_class.file_names:
        if match["file"] is not None:
            raise UsageError(f"{name} makes its own examples and reads no file")
        return spec.parse(name + (match["settings"] or ""), namespace)
    files = {"file": _file(task_class, match["file"], folder)}
    if "train_file" in inspect.signature(task_class).parameters and folder is not None:
        train_names = [f"{stem.removesuffix('_test')}_train" for stem in task_class.file_names]
        if (path := _find_in(folder, train_names)) is not None:
            files["train_file"] = path
    # The file is no part of the text, so that a path needs no quoting.
    with_files = {name: _bind(task_class, files)}
    return spec.parse(name + (match["settings"] or ""), with_files)


def _bind(task_class: type[Task], files: Mapping[str, Path]) -> Any:
    """The constructor of a task without its files."""
    parameters = inspect.signature(task_class).parameters

    def construct(**settings: Any) -> Task:
        return task_class(**files, **settings)

    construct.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [p.replace(kind=p.KEYWORD_ONLY) for n, p in parameters.items() if not _is_file(n)]
    )
    return construct


def _file(task_class: type[Task], file: str | None, folder: Path | None) -> Path:
    name = task_class.name
    if file is not None:
        path = Path(file.strip()).expanduser()
        if not path.is_file():
            raise BadInput(f"task file {path} of {name} does not exist")
        return path
    if folder is None:
        raise UsageError(f"{name} needs its file: --tasks {name}=FILE, or --task-data FOLDER")
    if not folder.is_dir():
        raise BadInput(f"--task-data {folder} is no folder")
    path_in_folder = _find_in(folder, task_class.file_names)
    if path_in_folder is None:
        names = " or ".join(f"{stem}.jsonl[.gz]" for stem in task_class.file_names)
        raise BadInput(f"{folder} has no file for {name}: {names}, also in its subfolders")
    return path_in_folder


def _find_in(folder: Path, stems: Any) -> Path | None:
    names = [stem + ending for stem in stems for ending in ENDINGS]
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        for name in names:
            if (place / name).is_file():
                return place / name
    return None


def _is_file(field: str) -> bool:
    return field in ("file", "train_file")
