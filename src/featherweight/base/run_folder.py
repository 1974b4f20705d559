"""The folder of a run that can be killed at any moment: the same command again continues where it
stopped.

    OUT.partial/            everything while working; becomes OUT/ by one rename, so OUT/ exists only when complete
      run.yaml              the recipe, fully resolved, and what made it; `--config run.yaml` runs it again
      events.jsonl          append-only progress, one JSON object a line
      journal/              one record a finished unit: its file, that file's SHA-256, the fingerprint of its inputs
      work/                 files of finished units that the result does not keep (deleted, like journal/, at the end)

A unit (one layer solved, one shard of curvature) is done when its record reads well, carries the
fingerprint asked for, and its file has the recorded SHA-256; anything else (truncated record,
altered file, other inputs) means that the unit is done again. A recipe that differs from the one in
run.yaml is refused, naming the keys, because half of the units would belong to something else. A
lock keeps a second process out; the system frees it when the first one dies.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

from .errors import UsageError
from .events import Event
from .files import disk_full, is_disk_full, remove_leftovers, sha256, sync_folder, write_atomic
from .machine import describe, versions

MADE_WITH = "made_with"
SCRATCH = ("journal", "work")


class RunFolder:
    """Opens, or resumes, the run that will become folder `out`; use as a context manager or call
    `close`.

    `recipe` is everything that decides the result, as plain dicts, lists and scalars. `fresh`
    forgets an earlier attempt; `overwrite` allows `publish` to replace an `out` that exists. Raises
    UsageError when `out` exists and may not be replaced, when an earlier attempt had another
    recipe, or when another process works in the folder.
    """

    def __init__(
        self,
        out: Path | str,
        recipe: Mapping[str, Any],
        fresh: bool = False,
        overwrite: bool = False,
    ):
        self.out = Path(out)
        if self.out.name in ("", ".."):
            raise UsageError(f"--out {out} names no folder to make; give it a name, like out/light")
        self.folder = self.out.with_name(self.out.name + ".partial")
        self.recipe = _plain(recipe)
        self.overwrite = overwrite
        _check_replaceable(self.out, overwrite)
        _check_ours(self.folder)
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
        """The record of a finished unit, or None when it must be done (again); its file is verified
        by SHA-256.
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
        """Journal `unit`; its `file`, if any, lies complete in this folder; `record` is plain data
        worth keeping.
        """
        entry = {
            "unit": unit,
            "fingerprint": fingerprint,
            "file": None if file is None else Path(file).relative_to(self.folder).as_posix(),
            "sha256": None if file is None else sha256(file),
            "record": _plain(record),
        }
        write_atomic(self._journal(unit), json.dumps(entry, indent=1))

    def listener(self, event: Event) -> None:
        """Append `event` to events.jsonl; pass this method wherever a listener is taken."""
        line = json.dumps({"time": round(time.time(), 3), **dataclasses.asdict(event)})
        try:
            self._events.write(line + "\n")
            self._events.flush()
        except OSError as error:
            if is_disk_full(error):
                raise disk_full(self.folder / "events.jsonl", len(line)) from error
            raise

    def publish(self) -> Path:
        """Make this folder `out` by one rename and return it; the run is closed.

        An `out` to be replaced is set aside first and deleted last. The rename comes before
        journal/ and work/ are deleted, so that a kill in between loses nothing.
        """
        _check_replaceable(self.out, self.overwrite)
        remove_leftovers(self.folder)
        self._events.close()
        aside = self.out.with_name(f"{self.out.name}.replaced-{os.getpid()}")
        if self.out.exists():
            os.replace(self.out, aside)
        os.replace(self.folder, self.out)
        sync_folder(self.out.absolute().parent)
        for name in SCRATCH:
            shutil.rmtree(self.out / name, ignore_errors=True)
        (self.out / "lock").unlink(missing_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        self._lock.close()
        return self.out

    def close(self) -> None:
        """Leave the folder as it is, to be resumed."""
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
            earlier = _read_recipe(path)
            changed = differing_keys(earlier, self.recipe)
            if changed:
                raise UsageError(
                    f"{self.folder} was started with another recipe; these keys differ: {'; '.join(changed)}. "
                    "Use the earlier values to resume, or --fresh to start over"
                )
        else:
            # Without how busy the machine was: two runs of one recipe leave equal files.
            machine = {key: value for key, value in describe().items() if key != "load_average"}
            made_with = {"machine": machine, "versions": versions()}
            write_atomic(path, _yaml({**self.recipe, MADE_WITH: made_with}))


def is_finished(out: Path | str, recipe: Mapping[str, Any]) -> bool:
    """Whether folder `out` is the published result of this very recipe, so that nothing is left to
    do.
    """
    path = Path(out) / "run.yaml"
    try:
        return path.exists() and not differing_keys(_read_recipe(path), recipe)
    except UsageError:
        return False


def differing_keys(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Differences of two recipes in words: "plan.lm_head:

    Int(bits=8) became None", sorted by key.
    """
    before, after = _flat(_plain(earlier)), _flat(_plain(now))
    words = []
    for key in sorted(before.keys() | after.keys()):
        if key not in before or key not in after or before[key] != after[key]:
            words.append(f"{key}: {before.get(key, 'absent')} became {after.get(key, 'absent')}")
    # In a plan the first pattern that matches decides, so the same patterns in another order are
    # another recipe.
    for key in earlier.keys() & now.keys():
        if not words and isinstance(now[key], Mapping) and list(earlier[key]) != list(now[key]):
            words.append(f"{key}: the order {', '.join(earlier[key])} became {', '.join(now[key])}")
    return words


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict) or not tree:
        return {prefix: tree}
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat.update(_flat(value, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _plain(tree: Any) -> Any:
    """The same data after a trip through JSON: tuples become lists, so that what was read equals
    what was written.
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
    tree.pop(MADE_WITH, None)
    return tree


def _yaml(tree: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(tree), sort_keys=False, allow_unicode=True, width=120)


def _is_ours(folder: Path) -> bool:
    """Whether nothing but a run of ours can be lost in `folder`: it has a run.yaml, or nothing but
    our first steps.
    """
    names = [path.name for path in folder.iterdir()]
    return "run.yaml" in names or all(name == "lock" or name.endswith(".part") for name in names)


def _check_ours(partial: Path) -> None:
    if partial.is_dir() and not _is_ours(partial):
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
            f"{out} was not made by featherweight (it has no run.yaml), so it will not be overwritten"
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
    """Open for appending; a line that a kill cut short is ended, so that the next one stands alone."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    handle = open(path, "a", encoding="utf-8")  # noqa: SIM115 - closed by close or publish
    if torn:
        handle.write("\n")
    return handle
