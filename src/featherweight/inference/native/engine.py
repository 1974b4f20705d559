"""The native engine: packed weights where they lie in a mapped file, one library call a token or a
chunk of a prompt.

Imports no torch. A `weights.ModelWeights` says what the library is to run
(`interchange.native_model` reads it from a folder); `NativeEngine` hands it over once and keeps
every array alive as long as the library may look at it. With `int8_activations` activations of
compressed layers are rounded to int8 a token (scale = max|x| / 127), as fast kernels need; without,
everything is float32 and equals the PyTorch reference to its rounding.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput, Unsupported, UsageError
from ...ops import library
from ..engine import Engine, Logits, Session
from . import abi
from .weights import ModelWeights

MAX_ROWS = 32  # tokens of a prompt in one call: each decoded weight serves sixteen at a time
MAX_BATCH = MAX_ROWS  # tokens a second grow up to sixteen; beyond, fewer waits for threads that share their processor


class NativeSession(Session):
    """Keys (transposed in blocks of 16 positions) and values; memory is taken from the system as it
    is used.
    """

    def __init__(self, model: ModelWeights, capacity: int, dtype: Any) -> None:
        width = -(-model.head_width // 16) * 16
        self.capacity, self.length = capacity, 0
        self.positions = -(-capacity // 16) * 16
        heads = (len(model.layers), model.num_key_heads)
        try:
            self.keys = _zeros((*heads, self.positions // 16, width, 16), dtype)
            self.values = _zeros((*heads, self.positions, width), dtype)
        except (MemoryError, OSError) as error:
            raise MemoryError(
                f"no memory for the keys and values of {capacity} tokens; ask for fewer"
            ) from error
        self.addresses = _address(self.keys), _address(self.values)

    @property
    def num_bytes(self) -> int:
        return int(self.keys.nbytes + self.values.nbytes)

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind a session of {self.length} tokens to {length}")
        self.length = length

    def state(self) -> dict[str, NDArray[Any]]:
        blocks = -(-self.length // 16)
        return {
            "keys": self.keys[:, :, :blocks].copy(),
            "values": self.values[:, :, : self.length].copy(),
        }

    def restore(self, state: dict[str, NDArray[Any]], length: int) -> None:
        if not 0 <= length <= self.capacity:
            raise UsageError(f"{length} tokens do not fit a session of {self.capacity}")
        blocks = -(-length // 16)
        for name, own in (
            ("keys", self.keys[:, :, :blocks]),
            ("values", self.values[:, :, :length]),
        ):
            kept = state.get(name)
            if kept is None or kept.shape != own.shape or kept.dtype != own.dtype:
                raise BadInput(
                    f"kept {name} do not fit this model; delete the cache that they come from"
                )
            own[:] = kept
        self.length = length

    def close(self) -> None:
        self.keys = self.values = np.zeros(0, np.float16)
        self.addresses = 0, 0
        self.capacity = self.length = 0


def _address(array: NDArray[Any]) -> int:
    """`array.ctypes.data` without the Python code behind it, which costs a token 20 us: weights
    have driven it from caches.
    """
    return int(array.__array_interface__["data"][0])


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Memory that the system gives page by page as it is used; numpy would ask for huge pages, and
    clear them whole.
    """
    count = int(np.prod(shape, dtype=np.int64))
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    memory = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=private)
    return np.frombuffer(memory, dtype, count).reshape(shape)


class NativeEngine(Engine):
    """`model` on the native library.

    Raises Unsupported when there is no library or it refuses the model.
    """

    def __init__(
        self,
        model: ModelWeights,
        *,
        int8_activations: bool = True,
        threads: int | None = None,
        isa: str | None = None,
    ) -> None:
        native = library.library()
        if native is None:
            raise Unsupported("the native library is not installed; `fw doctor` says why")
        self._native, self.model = native, model
        self.vocab_size, self.context, self.max_batch = model.vocab_size, model.context, MAX_BATCH
        self.description = f"{model.description}, native ({isa or library.isa()})"
        self.fingerprint = f"{model.fingerprint}-native{'' if int8_activations else '-float32'}"
        self._dtype = np.float16 if int8_activations else np.float32
        keeper = abi.Keeper()
        described = keeper.description(model, int8_activations, MAX_ROWS)
        self._keeper = keeper
        self._handle = ctypes.c_void_p()
        status = native.fw_model_new(
            ctypes.byref(described), library.chosen(isa), threads or 0, ctypes.byref(self._handle)
        )
        if status == 1:
            raise Unsupported("the native library does not run a model of these shapes")
        library.check(status, "loading the model")
        self._lock = threading.Lock()

    def session(self, capacity: int | None = None) -> NativeSession:
        capacity = self.context if capacity is None else capacity
        if not 1 <= capacity <= self.context:
            raise UsageError(
                f"a session of {capacity} tokens: this model was made for 1 to {self.context}"
            )
        return NativeSession(self.model, capacity, self._dtype)

    def forward(
        self, session: Session, tokens: Sequence[int] | NDArray[Any], logits: Logits = "last"
    ) -> NDArray[np.float32]:
        ids = self._ids(tokens)
        self._check_room(session, len(ids))
        wanted = {"last": 1, "all": len(ids), "none": 0}[logits]
        out = np.empty((wanted, self.vocab_size), np.float32)
        first, address = len(ids) - wanted, _address(out)
        with self._lock:
            self._check_open()
            for start in range(0, len(ids), MAX_ROWS):
                chunk = ids[start : start + MAX_ROWS]
                rows = (abi.RowStruct * len(chunk))()
                for i, (row, token) in enumerate(zip(rows, chunk, strict=True)):
                    self._fill(row, session, token, session.length + i)
                    if start + i >= first:
                        row.logits = address + 4 * (start + i - first) * self.vocab_size
                self._run(rows)
                session.length += len(chunk)
        return out

    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> NDArray[np.float32]:
        ids = self._ids(tokens)
        if (
            len(ids) != len(sessions)
            or len(ids) > self.max_batch
            or len({id(s) for s in sessions}) != len(ids)
        ):
            raise UsageError(
                f"{len(ids)} tokens for {len(sessions)} sessions, at most {self.max_batch}, each once"
            )
        for session in sessions:
            self._check_room(session, 1)
        out = np.empty((len(ids), self.vocab_size), np.float32)
        address = _address(out)
        rows = (abi.RowStruct * len(ids))()
        for i, session in enumerate(sessions):
            self._fill(rows[i], session, ids[i], session.length)
            rows[i].logits = address + 4 * i * self.vocab_size
        with self._lock:
            self._check_open()
            self._run(rows)
        for session in sessions:
            session.length += 1
        return out

    def close(self) -> None:
        with self._lock:
            if self._handle:
                self._native.fw_model_free(self._handle)
                self._handle = ctypes.c_void_p()
                self._keeper = abi.Keeper()
                self.model.close()
                # The weights themselves go with their last reference.
                self.model = replace(self.model, layers=())

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self._native.fw_model_free(self._handle)

    def _check_open(self) -> None:
        if not self._handle:
            raise UsageError("this engine is closed")
        self.model.check()

    def _run(self, rows: Any) -> None:
        library.check(
            self._native.fw_forward(self._handle, rows, len(rows)), f"running {len(rows)} tokens"
        )

    @staticmethod
    def _fill(row: Any, session: Session, token: int, position: int) -> None:
        assert isinstance(session, NativeSession)
        row.token, row.position, row.capacity = token, position, session.positions
        row.keys, row.values = session.addresses

    def _ids(self, tokens: Sequence[int] | NDArray[Any]) -> list[int]:
        ids = [int(token) for token in tokens]
        if not ids:
            raise UsageError("no tokens to run")
        if wrong := [token for token in ids if not 0 <= token < self.vocab_size]:
            raise UsageError(
                f"token {wrong[0]} is not in this model's vocabulary of {self.vocab_size}"
            )
        return ids

    @staticmethod
    def _check_room(session: Session, count: int) -> None:
        if session.length + count > session.capacity:
            raise UsageError(
                f"{session.length + count} tokens do not fit a session of {session.capacity}; "
                "shorten the prompt, ask for fewer tokens, or allow a longer context"
            )
