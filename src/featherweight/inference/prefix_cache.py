"""Beginnings of earlier texts on disk: a long prompt is computed once, and answers at once the next
time.

One file a text: its token ids and the engine's state, as safetensors, with a checksum over all of
it. The entry that shares the longest beginning with a new prompt is restored and rewound to where
they part. Entries belong to the engine's fingerprint, because other weights leave other keys and
values; so they lie in a folder of its name.

Files are written beside and renamed; the least recently used go when all together are larger than
`max_bytes`. A file that is damaged or of another shape is removed with a warning, and the prompt
computed. It holds what people typed, so the folder is made for its owner only.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, FeatherweightError, UsageError
from ..base.files import write_atomic
from .engine import Engine, Session

MAX_BYTES, MIN_TOKENS = 2 << 30, 32
TOKENS, STATE, CHECKSUM = "tokens", "state.", "crc32"


class PrefixCache:
    """Prefixes in `folder` (made when missing), at most `max_bytes` of them; texts under
    `min_tokens` are not kept.

    Raises UsageError when the folder cannot be made.
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
        """Make `session` hold the longest known beginning of `ids`, if that is longer than now; its
        length after.
        """
        wanted = np.asarray(ids, np.int64)
        entries = self._entries(engine)
        shared = {
            path: _shared(tokens, wanted[: session.capacity]) for path, tokens in entries.items()
        }
        for path in sorted(shared, key=lambda path: -shared[path]):
            if shared[path] < max(self.min_tokens, session.length + 1):
                break
            if self._restore(path, engine, session, shared[path]):
                break
        return session.length

    def keep(self, engine: Engine, session: Session, ids: Sequence[int]) -> None:
        """Remember `session`, which holds `ids`; entries that are beginnings of it are replaced by
        it.

        A full disk is a warning: the text was computed already.
        """
        tokens = np.asarray(ids, np.int64)
        if len(tokens) != session.length:
            raise UsageError(f"{len(tokens)} ids for a session of {session.length} tokens")
        if len(tokens) < self.min_tokens:
            return
        entries = self._entries(engine)
        for path, known in entries.items():
            if len(known) >= len(tokens) and _shared(known, tokens) == len(tokens):
                _touch(path)
                return
        arrays = {
            TOKENS: tokens,
            **{STATE + name: array for name, array in session.state().items()},
        }
        if sum(array.nbytes for array in arrays.values()) > self.max_bytes:
            return
        try:
            self._write(self._folder(engine) / f"{_digest(tokens.tobytes())}.safetensors", arrays)
            for path, known in entries.items():
                if _shared(known, tokens) == len(known) < len(tokens):
                    path.unlink(missing_ok=True)
            self._evict()
        except (OSError, BadInput) as error:
            _log().warning("the prefix cache keeps nothing: %s", error)

    def _write(self, path: Path, arrays: dict[str, NDArray]) -> None:
        from safetensors.numpy import save_file

        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        path.parent.mkdir(mode=0o700, exist_ok=True)
        write_atomic(
            path, lambda beside: save_file(arrays, beside, {CHECKSUM: str(_checksum(arrays))})
        )

    def _folder(self, engine: Engine) -> Path:
        return self.folder / _digest(engine.fingerprint.encode())

    def _entries(self, engine: Engine) -> dict[Path, NDArray[np.int64]]:
        """The tokens of every entry of this engine; damaged ones are removed."""
        found = {}
        for path in sorted(self._folder(engine).glob("*.safetensors")):
            tokens = self._guarded(path, _read_tokens)
            if tokens is not None:
                found[path] = tokens
        return found

    def _restore(self, path: Path, engine: Engine, session: Session, length: int) -> bool:
        def read(path: Path) -> bool:
            arrays = _read(path)
            tokens = arrays.pop(TOKENS)
            _restore(
                engine,
                session,
                {name.removeprefix(STATE): a for name, a in arrays.items()},
                len(tokens),
                length,
            )
            return True

        done = bool(self._guarded(path, read))
        if done:
            _touch(path)
        else:
            session.rewind(0)
        return done

    def _guarded(self, path: Path, read: Any) -> Any:
        """`read(path)`, or None with a warning, the file removed, when it is no good."""
        from safetensors import SafetensorError

        try:
            return read(path)
        except FileNotFoundError:
            return None  # another process needed the space
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

    def _evict(self) -> None:
        """Remove the least recently used of all engines until the rest fits."""
        known = []
        for path in self.folder.glob("*/*.safetensors"):
            try:
                facts = path.stat()
            except FileNotFoundError:
                continue
            known.append((facts.st_mtime_ns, facts.st_size, path))
        total = sum(size for _, size, _ in known)
        for _, size, path in sorted(known, key=lambda entry: entry[0]):
            if total <= self.max_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def _restore(
    engine: Engine, session: Session, state: dict[str, NDArray], length: int, wanted: int
) -> None:
    """Make `session` hold the first `wanted` of the `length` tokens in `state`."""
    if length <= session.capacity:
        session.restore(state, length)
        session.rewind(wanted)
        return
    longer = engine.session(length)
    try:
        longer.restore(state, length)
        longer.rewind(wanted)
        session.restore(longer.state(), wanted)
    finally:
        longer.close()


def _log() -> logging.Logger:
    return logging.getLogger(__name__)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:32]


def _shared(a: NDArray[np.int64], b: NDArray[np.int64]) -> int:
    """How many tokens both begin with."""
    length = min(len(a), len(b))
    different = np.flatnonzero(a[:length] != b[:length])
    return int(different[0]) if len(different) else length


def _checksum(arrays: Mapping[str, NDArray]) -> int:
    checksum = 0
    for name in sorted(arrays):
        array = arrays[name]
        checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
        checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _read_tokens(path: Path) -> NDArray[np.int64]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        return np.asarray(file.get_tensor(TOKENS), np.int64).reshape(-1)


def _read(path: Path) -> dict[str, NDArray]:
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        noted = (file.metadata() or {}).get(CHECKSUM)
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    if noted != str(_checksum(arrays)):
        raise BadInput("its checksum differs")
    return arrays


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        pass  # removed or read-only: the order of eviction is all that suffers
