"""The folder of a run. A run may be killed at any moment, and the same command continues it.

    OUT.partial/      the folder while the run works; at the end it is renamed to OUT/
      run.yaml        the resolved recipe, and the machine and versions of its first start;
                      `--config run.yaml` runs it again
      events.jsonl    progress, one JSON object a line, only ever appended
      journal/        a record of each finished unit: its file, the SHA-256 of that file, and the
                      fingerprint of its inputs; deleted at the end
      work/           files of finished units that are not part of the result; deleted at the end

A unit (one layer, one shard of curvature) is finished when its record can be read, has the
requested fingerprint, and its file has the recorded SHA-256. In every other case (a truncated
record, an altered file, other inputs) the unit is computed again. A recipe that differs from the
one in run.yaml raises UsageError, which names the keys, because the finished units would belong to
another result. A file lock prevents that a second process works in the folder; the system releases
it when the first process ends.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from .errors import UsageError
from .events import Event
from .files import disk_full, is_disk_full, remove_leftovers, sha256, sync_folder, write_atomic
from .machine import describe, versions
from .records import json_ready

ORIGIN = "made_with"  # the key of run.yaml that is not part of the recipe
SCRATCH = ("journal", "work")


class RunFolder:
    """A context manager that starts, or resumes, the run whose result is the folder `out`.

    recipe: everything that the result depends on, as dicts, lists and scalars. fresh: delete an
    earlier attempt. overwrite: allow `publish` to replace an existing `out`. free_keys: keys of the
    recipe, with all below them, that may differ when an earlier attempt is resumed, because no unit
    depends on them; run.yaml then holds the new values.

    Raises UsageError when `out` exists and may not be replaced, when an earlier attempt had another
    recipe, or when another process works in the folder.
    """

    def __init__(
        self,
        out: Path | str,
        recipe: Mapping[str, Any],
        fresh: bool = False,
        overwrite: bool = False,
        free_keys: Collection[str] = (),
    ):
        self.out = Path(out)
        if self.out.name in ("", ".."):
            raise UsageError(f"--out {out} names no folder to make; give it a name, like out/light")
        self.folder = self.out.with_name(self.out.name + ".partial")
        self.recipe = _as_json(recipe)
        self._free_keys = free_keys
        self.overwrite = overwrite
        _check_replaceable(self.out, overwrite)
        _check_is_run(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(self.folder / "lock", self.folder)
        try:
            if fresh:
                _empty(self.folder, keep="lock")
            self._open_recipe()
            for name in SCRATCH:
                (self.folder / name).mkdir(exist_ok=True)
            remove_leftovers(self.folder)
            self._events = _open_events(self.folder / "events.jsonl")
        except BaseException:
            self._lock.close()
            raise

    @property
    def work(self) -> Path:
        """Folder for files of units that are not part of the result."""
        return self.folder / "work"

    def done(self, unit: str, fingerprint: str) -> dict[str, Any] | None:
        """The record of the unit `unit` when it is finished: its record has this `fingerprint` and
        its file has the recorded SHA-256. None otherwise.
        """
        try:
            entry = json.loads(self._journal(unit).read_text(encoding="utf-8"))
            if entry["unit"] != unit or entry["fingerprint"] != fingerprint:
                return None
            if entry["file"] is not None and sha256(self.folder / entry["file"]) != entry["sha256"]:
                return None
            record = entry["record"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return record if isinstance(record, dict) else None

    def finish_unit(
        self, unit: str, fingerprint: str, file: Path | None, record: Mapping[str, Any]
    ) -> None:
        """Write the journal entry of a finished unit.

        fingerprint: of its inputs. file: its complete file in this folder, or None. record: data
        for JSON that `done` returns later.
        """
        entry = {
            "unit": unit,
            "fingerprint": fingerprint,
            "file": None if file is None else Path(file).relative_to(self.folder).as_posix(),
            "sha256": None if file is None else sha256(file),
            "record": _as_json(record),
        }
        write_atomic(self._journal(unit), json.dumps(entry, indent=1))

    def listener(self, event: Event) -> None:
        """Append `event` to events.jsonl; pass this method wherever a listener is taken."""
        entry = {"time": round(time.time(), 3), **dataclasses.asdict(event)}
        line = json.dumps(json_ready(entry))
        try:
            self._events.write(line + "\n")
            self._events.flush()
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self.folder / "events.jsonl", len(line)) from error
            raise

    def change_recipe(self, recipe: Mapping[str, Any]) -> None:
        """Let run.yaml say `recipe`, which may differ from that of the run in its free keys only.

        Raises UsageError for other differences.
        """
        self.recipe = _as_json(recipe)
        self._open_recipe()

    def publish(self) -> Path:
        """Rename this folder to `out`, close the run, and return `out`.

        An existing `out` is renamed first and deleted last. journal/ and work/ are deleted after
        the rename, so that a kill at any point loses nothing.
        """
        _check_replaceable(self.out, self.overwrite)
        remove_leftovers(self.folder)
        self._events.close()
        replaced_folder = self.out.with_name(f"{self.out.name}.replaced-{os.getpid()}")
        if self.out.exists():
            os.replace(self.out, replaced_folder)
        os.replace(self.folder, self.out)
        sync_folder(self.out.absolute().parent)
        for name in SCRATCH:
            shutil.rmtree(self.out / name, ignore_errors=True)
        (self.out / "lock").unlink(missing_ok=True)
        shutil.rmtree(replaced_folder, ignore_errors=True)
        self._lock.close()
        return self.out

    def close(self) -> None:
        """Close the run without publishing it, so that it can be resumed."""
        self._events.close()
        self._lock.close()

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _journal(self, unit: str) -> Path:
        name = quote(unit, safe="")
        if len(name) > 200:
            name = f"{name[:120]}-{hashlib.sha256(unit.encode()).hexdigest()[:32]}"
        return self.folder / "journal" / f"{name}.json"

    def _open_recipe(self) -> None:
        path = self.folder / "run.yaml"
        if path.exists():
            old_recipe = _read_recipe(path)
            if differences := differing_keys(old_recipe, self.recipe, self._free_keys):
                raise UsageError(
                    f"{self.folder} was started with another recipe; these keys differ: "
                    f"{'; '.join(differences)}. Use the earlier values to resume, or --fresh to "
                    "start over"
                )
        if not path.exists() or differing_keys(old_recipe, self.recipe):
            # The load average is left out, so that two runs of one recipe write equal files.
            machine = {key: value for key, value in describe().items() if key != "load_average"}
            origin = {"machine": machine, "versions": versions()}
            write_atomic(path, _yaml({**self.recipe, ORIGIN: origin}))


def is_finished(
    out: Path | str, recipe: Mapping[str, Any], free_keys: Collection[str] = ()
) -> bool:
    """Whether the folder `out` is the published result of an equal recipe."""
    path = Path(out) / "run.yaml"
    try:
        return path.exists() and not differing_keys(_read_recipe(path), recipe, free_keys)
    except UsageError:
        return False


def differing_keys(
    old: Mapping[str, Any], new: Mapping[str, Any], free_keys: Collection[str] = ()
) -> list[str]:
    """Differences of two recipes in words, by key, such as "bits: 2 became 3".

    free_keys: keys that do not count, with all below them.
    """
    old = {key: value for key, value in old.items() if key not in free_keys}
    new = {key: value for key, value in new.items() if key not in free_keys}
    old_values, new_values = _by_path(_as_json(old)), _by_path(_as_json(new))
    differences = []
    for key in sorted(old_values.keys() | new_values.keys()):
        if (key in old_values) != (key in new_values) or old_values[key] != new_values[key]:
            values = (values.get(key, "absent") for values in (old_values, new_values))
            differences.append(f"{key}: {' became '.join(map(str, values))}")
    # In a plan the first matching pattern decides, so another order of keys is another recipe.
    for key in old.keys() & new.keys():
        if not differences and isinstance(new[key], Mapping) and list(old[key]) != list(new[key]):
            orders = f"{', '.join(old[key])} became {', '.join(new[key])}"
            differences.append(f"{key}: the order {orders}")
    return differences


def _by_path(tree: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of a nested dict by their dotted path."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        leaves.update(_by_path(value, f"{prefix}.{key}" if prefix else str(key)))
    return leaves


def _as_json(tree: Any) -> Any:
    """The data after a round trip through JSON (tuples become lists), so that it can be compared
    with the content of a file.
    """
    return json.loads(json.dumps(tree))


def _read_recipe(path: Path) -> dict[str, Any]:
    import yaml

    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}); use --fresh to start over") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds no recipe; use --fresh to start over")
    tree.pop(ORIGIN, None)
    return tree


def _yaml(tree: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=120)


def _is_run(folder: Path) -> bool:
    """Whether `folder` holds a run, or only the files that a run writes first."""
    names = [path.name for path in folder.iterdir()]
    return "run.yaml" in names or all(name == "lock" or name.endswith(".part") for name in names)


def _check_is_run(partial: Path) -> None:
    if partial.is_dir() and not _is_run(partial):
        raise UsageError(
            f"{partial} exists but is not an unfinished run of featherweight; choose another --out"
        )


def _check_replaceable(out: Path, overwrite: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; --out must name a folder")
    if not any(out.iterdir()):
        return
    if not overwrite:
        raise UsageError(
            f"{out} exists already; choose another --out, or add --overwrite to replace it"
        )
    if not (out / "run.yaml").exists():
        raise UsageError(
            f"{out} was not made by featherweight (it has no run.yaml), so it is not overwritten"
        )


def _empty(folder: Path, keep: str) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != keep:
            path.unlink()


def _lock(path: Path, folder: Path) -> IO[str]:
    handle = open(path, "a", encoding="utf-8")  # noqa: SIM115 - held as long as the run is open
    with contextlib.suppress(ImportError):
        import fcntl

        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            handle.close()
            raise UsageError(
                f"another process works in {folder}; wait for it, or choose another --out"
            ) from error
    return handle


def _open_events(path: Path) -> IO[str]:
    """Open for appending. When a kill truncated the last line, a line break is appended first."""
    is_truncated = (
        path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    )
    handle = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close or publish
    if is_truncated:
        handle.write("\n")
    return handle
