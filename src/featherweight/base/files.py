"""Atomic writing of files, so that a crash, a kill or a full disk leaves no incomplete file.

`write_atomic` writes a temporary file beside the target, flushes it to the disk, renames it to the
target and flushes the folder. So a reader, or the next run, finds either the old or the new
content. A temporary file has a name like `.model.safetensors.4711.part`; `remove_leftovers` deletes
those of killed runs. The error for a full disk says how much space was needed and that the same
command resumes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from .errors import BadInput

CHUNK_BYTES = 1 << 20


def write_atomic(path: Path | str, content: bytes | str | Callable[[Path], object]) -> None:
    """Write `content` to `path` atomically; text is encoded as UTF-8.

    A callable gets the path of a temporary file in the same folder and must write it
    (`lambda p: save_file(tensors, p)`). Raises BadInput when the disk is full. After this and any
    other error, `path` has its old content.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    data = content.encode() if isinstance(content, str) else content
    try:
        if callable(data):
            data(temporary)
        else:
            temporary.write_bytes(data)
        _sync(temporary)
        os.replace(temporary, path)
        sync_folder(path.parent)
    except BaseException as error:
        num_written = temporary.stat().st_size if temporary.exists() else 0
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, Exception) and is_disk_full(error):
            raise disk_full(path, len(data) if not callable(data) else None, num_written) from error
        raise


def is_disk_full(error: BaseException) -> bool:
    """Whether `error` says that the disk or the quota is full, also when a library has wrapped the
    error of the system.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return "No space left on device" in str(error)


def disk_full(path: Path, num_bytes: int | None = None, num_written: int = 0) -> BadInput:
    """The error for a full disk, which names the folder, the size of the file and what to do.

    num_bytes: the size of the complete file, None when it is unknown. num_written: the bytes that
    were written.
    """
    free = ""
    with contextlib.suppress(OSError):
        free = f" ({_size(shutil.disk_usage(path.parent).free)} free)"
    if num_bytes is not None:
        cause = f"{path.name} needs {_size(num_bytes)}"
    else:
        cause = f"{path.name} stopped after {_size(num_written)}"
    return BadInput(
        f"no space left on the disk of {path.parent}{free}: {cause}; "
        "free some space, the same command resumes"
    )


def sha256(path: Path | str) -> str:
    """Hexadecimal SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable; a no-op where folders cannot be flushed (Windows)."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems refuse to flush a folder; the rename itself has happened.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
    finally:
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files of killed runs anywhere under `folder`."""
    for leftover in folder.rglob(".*.part"):
        leftover.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def _size(num_bytes: int) -> str:
    value = float(num_bytes)
    for unit in ("bytes", "KB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
