"""Prefixes of earlier texts on disk: a long prompt is computed once, and its keys and values are
read from a file the next time.

Each text is one safetensors file with its token ids, the engine's state, and a checksum over all of
it. The entry with the longest common prefix with a new prompt is restored and rewound to that
prefix. Entries belong to the engine's fingerprint, because other weights give other keys and
values; they lie in a folder with its name.

A file is written under another name and renamed. When all files together are larger than
`max_bytes`, the least recently used are deleted. A file that is damaged or of another shape is
deleted with a warning, and the prompt is computed. The files hold what people typed, so only the
owner can read the folder.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, FeatherweightError, UsageError
from ..base.files import write_atomic
from .engine import Engine, Session
from .prefixes import common_prefix_length

MAX_BYTES, MIN_TOKENS = 2 << 30, 32
TOKENS, STATE, CHECKSUM = "tokens", "state.", "crc32"
Content = TypeVar("Content")


class PrefixCache:
    """Prefixes in `folder`, which is made when it is missing.

    max_bytes: the size of all files together. min_tokens: shorter texts are not stored. Raises
    UsageError when the folder cannot be made.
    """

    def __init__(
        self, folder: Path | str, max_bytes: int = MAX_BYTES, min_tokens: int = MIN_TOKENS
    ) -> None:
        self.folder, self.max_bytes, self.min_tokens = Path(folder), max_bytes, max(1, min_tokens)
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"the prefix cache cannot be kept in {folder}: {error.strerror}"
            ) from error

    def restore(self, engine: Engine, session: Session, ids: Sequence[int]) -> int:
        """Make `session` hold the longest prefix of `ids` that is stored, when that is longer than
        what it holds.

        Returns the length of the session afterwards, in tokens.
        """
        prompt = [int(id) for id in ids[: session.capacity]]
        prefix_lengths = {
            path: common_prefix_length(tokens, prompt)
            for path, tokens in self._entries(engine).items()
        }
        for path in sorted(prefix_lengths, key=lambda path: -prefix_lengths[path]):
            if prefix_lengths[path] < max(self.min_tokens, session.length + 1):
                break
            if self._restore_entry(path, engine, session, prefix_lengths[path]):
                break
        return session.length

    def save(self, engine: Engine, session: Session, ids: Sequence[int]) -> None:
        """Store `session`, which holds `ids`; entries that are a prefix of it are replaced.

        A full disk is a warning, because the text was computed already. Raises UsageError when the
        number of ids is not the length of the session.
        """
        tokens = [int(id) for id in ids]
        if len(tokens) != session.length:
            raise UsageError(f"{len(tokens)} ids for a session of {session.length} tokens")
        if len(tokens) < self.min_tokens:
            return
        entries = self._entries(engine)
        prefix_lengths = {
            path: common_prefix_length(entry, tokens) for path, entry in entries.items()
        }
        for path, length in prefix_lengths.items():
            if length == len(tokens):
                _touch(path)
                return
        token_array = np.array(tokens, np.int64)
        arrays = {
            TOKENS: token_array,
            **{STATE + name: array for name, array in session.state().items()},
        }
        if sum(array.nbytes for array in arrays.values()) > self.max_bytes:
            return
        file_name = f"{_digest(token_array.tobytes())}.safetensors"
        try:
            self._write(self._folder(engine) / file_name, arrays)
            for path, length in prefix_lengths.items():
                if length == len(entries[path]):
                    path.unlink(missing_ok=True)
            self._evict()
        except (OSError, BadInput) as error:
            _log().warning("the prefix cache keeps nothing: %s", error)

    def _write(self, path: Path, arrays: dict[str, NDArray]) -> None:
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        metadata = {CHECKSUM: str(_checksum(arrays))}
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(path, lambda temporary: save_file(arrays, temporary, metadata))

    def _folder(self, engine: Engine) -> Path:
        return self.folder / _digest(engine.fingerprint.encode())

    def _entries(self, engine: Engine) -> dict[Path, list[int]]:
        """The tokens of every entry of this engine; damaged entries are deleted."""
        entries = {}
        for path in sorted(self._folder(engine).glob("*.safetensors")):
            tokens = _read_or_delete(path, _read_tokens)
            if tokens is not None:
                entries[path] = tokens
        return entries

    def _restore_entry(self, path: Path, engine: Engine, session: Session, length: int) -> bool:
        """Make `session` hold the first `length` tokens of an entry; whether that worked."""

        def read(path: Path) -> bool:
            arrays = _read(path)
            tokens = arrays.pop(TOKENS)
            state = {name.removeprefix(STATE): array for name, array in arrays.items()}
            _restore_prefix(engine, session, state, len(tokens), length)
            return True

        is_restored = bool(_read_or_delete(path, read))
        if is_restored:
            _touch(path)
        else:
            session.rewind(0)
        return is_restored

    def _evict(self) -> None:
        """Delete the least recently used entries, of all engines, until the files fit."""
        files = []
        for path in self.folder.glob("*/*.safetensors"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files, key=lambda file: file[0]):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _restore_prefix(
    engine: Engine,
    session: Session,
    state: dict[str, NDArray],
    state_length: int,
    prefix_length: int,
) -> None:
    """Make `session` hold the first `prefix_length` of the `state_length` tokens in `state`."""
    if state_length <= session.capacity:
        session.restore(state, state_length)
        session.rewind(prefix_length)
        return
    # A session that is long enough for the whole state cuts it to the prefix.
    long_session = engine.session(state_length)
    try:
        long_session.restore(state, state_length)
        long_session.rewind(prefix_length)
        session.restore(long_session.state(), prefix_length)
    finally:
        long_session.close()


def _log() -> logging.Logger:
    return logging.getLogger(__name__)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _checksum(arrays: Mapping[str, NDArray]) -> int:
    checksum = 0
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _read_or_delete(path: Path, read: Callable[[Path], Content]) -> Content | None:
    """`read(path)`; None, with a warning and the file deleted, when that fails."""
    from safetensors import SafetensorError

    try:
        return read(path)
    except FileNotFoundError:
        return None  # another process deleted it to make room
    except (
        SafetensorError,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        FeatherweightError,
    ) as error:
        _log().warning("%s is damaged or of another kind (%s); it is removed", path, error)
        path.unlink(missing_ok=True)
        return None


def _read_tokens(path: Path) -> list[int]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor(TOKENS), np.int64).reshape(-1).tolist()


def _read(path: Path) -> dict[str, NDArray]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        checksum = (file.metadata() or {}).get(CHECKSUM)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    if checksum != str(_checksum(arrays)):
        raise BadInput("its checksum differs")
    return arrays


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        pass  # deleted or read-only: only the order of eviction is worse then
