"""Where fetched and converted models live, and how a folder comes into being all at once.

The cache is `$FEATHERWEIGHT_CACHE`, else `~/.cache/featherweight`; everything in it can be deleted
at any time. A folder is built beside its place and renamed into it: a killed conversion leaves
nothing that looks finished, and of two processes that convert the same model one wins and both use
the result.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from ..base.errors import BadInput
from ..base.files import disk_full, is_disk_full, sync_folder

ABANDONED_SECONDS = 24 * 3600


def cache_folder() -> Path:
    """The cache's path; it may not exist yet."""
    return Path(os.environ.get("FEATHERWEIGHT_CACHE") or "~/.cache/featherweight").expanduser()


def built_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """`folder`, after `build(empty folder beside it)` and one rename, unless it exists already.

    Raises BadInput when the disk is full or the cache cannot be written; nothing half-built stays.
    """
    if folder.is_dir():
        return folder
    beside = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        beside.mkdir()
        build(beside)
        sync_folder(beside)
        _rename(beside, folder)
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, BadInput):
            raise disk_full(folder) from error
        if isinstance(error, PermissionError):
            raise BadInput(
                f"{folder.parent} cannot be written; set FEATHERWEIGHT_CACHE to a folder that can"
            ) from error
        raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Delete what a killed process left of `folder`; a day old, because another process may be at
    work now.
    """
    for left in folder.parent.glob(f".{folder.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(left)


def _rename(beside: Path, folder: Path) -> None:
    try:
        os.rename(beside, folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
    sync_folder(folder.parent)
