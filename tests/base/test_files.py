"""Atomic writes: new content or old content, and a full disk in words."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from featherweight.base import files
from featherweight.base.errors import BadInput


def test_writes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_atomic(path, b"one")
    files.write_atomic(path, "zwei ä")
    assert path.read_text(encoding="utf-8") == "zwei ä"
    files.write_atomic(path, lambda temporary: temporary.write_bytes(b"three"))
    assert path.read_bytes() == b"three"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.bin"]


def test_a_failing_writer_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    files.write_atomic(path, b"old")

    def half(temporary: Path) -> None:
        temporary.write_bytes(b"ha")
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        files.write_atomic(path, half)
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (28)"),
    ],
)
def test_a_full_disk_in_words(tmp_path: Path, error: Exception) -> None:
    def full(temporary: Path) -> None:
        temporary.write_bytes(b"x" * 5000)
        raise error

    with pytest.raises(
        BadInput, match=r"no space left.*free\).*model.bin stopped after 5 KB.*same command resumes"
    ):
        files.write_atomic(tmp_path / "model.bin", full)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_what_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="model.bin needs 2 MB"):
        files.write_atomic(tmp_path / "model.bin", b"x" * 2_000_000)
    assert list(tmp_path.iterdir()) == []


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.write_atomic(tmp_path / "missing" / "a.bin", b"x")


def test_sha256(tmp_path: Path) -> None:
    data = os.urandom(files.CHUNK_BYTES + 7)
    (tmp_path / "a").write_bytes(data)
    assert files.sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_remove_leftovers(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".model.bin.12-34.part").write_bytes(b"half")
    (tmp_path / "sub" / "model.part").write_bytes(b"a user's file")
    files.remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["sub", "model.part"]
