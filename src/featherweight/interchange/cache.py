"""The cache of fetched and converted models, and folders that appear in it complete or not at all.

The cache is `$FEATHERWEIGHT_CACHE`, else `~/.cache/featherweight`; everything in it can be deleted
at any time. A folder is built under a temporary name beside its path and then renamed: a killed
conversion leaves nothing that looks finished, and of two processes that convert the same model one
wins and both use the result.
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


def build_once(folder: Path, build: Callable[[Path], object]) -> Path:
    """Return `folder`, and create it first when it does not exist.

    `build` is called with an empty temporary folder, which it fills and which is then renamed to
    `folder`. Raises BadInput when the disk is full or the cache cannot be written; the temporary
    folder is deleted in every case.
    """
    if folder.is_dir():
        return folder
    temporary = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.part")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(folder)
        temporary.mkdir()
        build(temporary)
        sync_folder(temporary)
        _rename(temporary, folder)
    except Exception as error:
        if is_disk_full(error) and not isinstance(error, BadInput):
            raise disk_full(folder) from error
        if isinstance(error, PermissionError):
            raise BadInput(
                f"{folder.parent} cannot be written; set FEATHERWEIGHT_CACHE to a folder that can"
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _remove_abandoned(folder: Path) -> None:
    """Delete the temporary folders of killed processes. Only folders older than a day are deleted,
    because another process may be filling a younger one now.
    """
    for temporary in folder.parent.glob(f".{folder.name}.*.part"):
        with contextlib.suppress(OSError):
            if time.time() - temporary.stat().st_mtime > ABANDONED_SECONDS:
                shutil.rmtree(temporary)


def _rename(temporary: Path, folder: Path) -> None:
    try:
        os.rename(temporary, folder)
    except OSError:
        if not folder.is_dir():  # otherwise another process has just built the same content
            raise
    sync_folder(folder.parent)
