"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..base.files import sync_folder


@contextmanager
def atomic_path(out: Path) -> Iterator[Path]:
    """A path beside `out` at which the block writes a file or a folder.

    When the block ends without an error, what it wrote replaces `out` by one rename; else it is
    deleted and `out` stays as it was.
    """
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    _remove(temporary)
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
        _remove(out)
        os.replace(temporary, out)
        sync_folder(out.absolute().parent)
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
