"""The native engine: packed weights stay in mapped files, and each token or chunk of a prompt is
one library call.

Imports no torch. A `weights.ModelWeights` says what the library runs (`reader` builds it from a
folder). `NativeEngine` hands it over once and holds every array as long as the library may read it.
With `int8_activations` the activations of compressed layers are rounded to int8 for each token
(scale = max|x| / 127), as the fast kernels need. Without, everything is float32 and equals the
PyTorch reference up to its rounding.
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

# Tokens of a prompt in one call. A kernel decodes each weight once for sixteen tokens.
MAX_TOKENS = 32
# Tokens a second grow with the batch up to sixteen sessions. Larger batches still mean fewer calls,
# so fewer waits for threads that share their processor.
MAX_BATCH = MAX_TOKENS
# Positions in a block of keys, and the multiple to which head widths are padded.
BLOCK = 16


class NativeSession(Session):
    """Keys (transposed in blocks of 16 positions) and values.

    The system gives the memory page by page as it is used. `heads` are (layers, key heads).
    `addresses` are those of keys and values, `positions` is the capacity rounded up to whole
    blocks.
    """

    def __init__(self, heads: tuple[int, int], head_width: int, capacity: int, dtype: Any) -> None:
        width = -(-head_width // BLOCK) * BLOCK
        self.capacity, self.length = capacity, 0
        self.positions = -(-capacity // BLOCK) * BLOCK
        try:
            self.keys = _zeros((*heads, self.positions // BLOCK, width, BLOCK), dtype)
            self.values = _zeros((*heads, self.positions, width), dtype)
        except (MemoryError, OSError) as error:
            raise MemoryError(
                f"no memory for the keys and values of {capacity} tokens; ask for fewer"
            ) from error
        self.addresses = _address(self.keys), _address(self.values)

    @property
    def num_bytes(self) -> int:
        """Size of keys and values at full capacity."""
        return int(self.keys.nbytes + self.values.nbytes)

    def rewind(self, length: int) -> None:
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind a session of {self.length} tokens to {length}")
        self.length = length

    def fork(self) -> NativeSession:
        """Copies the keys and values of the tokens, and nothing of the remaining capacity."""
        if not self.capacity:
            raise UsageError("this session is closed")
        layers, key_heads, _, width = self.values.shape
        session = NativeSession((layers, key_heads), width, self.capacity, self.values.dtype)
        for view, source in zip(
            session._views(self.length).values(), self._views(self.length).values(), strict=True
        ):
            view[:] = source
        session.length = self.length
        return session

    def state(self) -> dict[str, NDArray[Any]]:
        return {name: view.copy() for name, view in self._views(self.length).items()}

    def restore(self, state: dict[str, NDArray[Any]], length: int) -> None:
        if not 0 <= length <= self.capacity:
            raise UsageError(f"{length} tokens do not fit a session of {self.capacity}")
        for name, view in self._views(length).items():
            array = state.get(name)
            if array is None or array.shape != view.shape or array.dtype != view.dtype:
                raise BadInput(
                    f"kept {name} do not fit this model; delete the cache that they come from"
                )
            view[:] = array
        self.length = length

    def _views(self, length: int) -> dict[str, NDArray[Any]]:
        """The part of keys and values that `length` tokens use."""
        num_blocks = -(-length // BLOCK)
        return {"keys": self.keys[:, :, :num_blocks], "values": self.values[:, :, :length]}

    def close(self) -> None:
        self.keys = self.values = np.zeros(0, np.float16)
        self.addresses = 0, 0
        self.capacity = self.length = 0


def _address(array: NDArray[Any]) -> int:
    """The number that `array.ctypes.data` gives. That attribute runs Python code which costs 20 us
    a token, because the weights have evicted it from the caches.
    """
    return int(array.__array_interface__["data"][0])


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Zeros whose memory the system gives page by page as it is used. numpy would ask for huge
    pages, and the system would clear each of them in full.
    """
    count = int(np.prod(shape, dtype=np.int64))
    private = getattr(mmap, "MAP_PRIVATE", 0) | getattr(mmap, "MAP_ANONYMOUS", 0)
    memory = mmap.mmap(-1, count * np.dtype(dtype).itemsize, flags=private)
    return np.frombuffer(memory, dtype, count).reshape(shape)


class NativeEngine(Engine):
    """A model on the native library.

    Args: model, its weights; int8_activations, round activations to int8 (with keys and values in
    half precision), else everything is float32; threads (None: the library's default); isa, one of
    scalar, avx2, avx512 (None: the best). Raises Unsupported when there is no library or it does
    not run the model.
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
        self._arena = abi.StructArena()
        struct = self._arena.model_struct(model, int8_activations, MAX_TOKENS)
        self._handle = ctypes.c_void_p()
        status = native.fw_model_new(
            ctypes.byref(struct), library.encode_isa(isa), threads or 0, ctypes.byref(self._handle)
        )
        if status == 1:
            raise Unsupported("the native library does not run a model of these shapes")
        library.check(status, "loading the model")
        self._lock = threading.Lock()

    def session(self, capacity: int | None = None) -> NativeSession:
        capacity = self.context if capacity is None else capacity
        if self.context < capacity <= self.model.full_context:
            raise Unsupported(f"a session of {capacity} tokens: {self.limitation}")
        if not 1 <= capacity <= self.context:
            raise UsageError(
                f"a session of {capacity} tokens: this model was made for 1 to {self.context}"
            )
        heads = len(self.model.layers), self.model.num_key_heads
        return NativeSession(heads, self.model.head_width, capacity, self._dtype)

    @property
    def limitation(self) -> str:
        """Why sessions are shorter than the model's context; "" when they are not."""
        if self.context == self.model.full_context:
            return ""
        return (
            f"the native engine runs {self.context} of this model's {self.model.full_context} "
            "positions, because longer texts turn all of them in another way; "
            "--runtime reference runs all"
        )

    def forward(
        self, session: Session, tokens: Sequence[int] | NDArray[Any], logits: Logits = "last"
    ) -> NDArray[np.float32]:
        ids = self._check_tokens(tokens)
        self._check_room(session, len(ids))
        num_logits = {"last": 1, "all": len(ids), "none": 0}[logits]
        out = np.empty((num_logits, self.vocab_size), np.float32)
        first_with_logits, address = len(ids) - num_logits, _address(out)
        with self._lock:
            self._check_open()
            for start in range(0, len(ids), MAX_TOKENS):
                chunk = ids[start : start + MAX_TOKENS]
                rows = (abi.RowStruct * len(chunk))()
                for i, (row, token) in enumerate(zip(rows, chunk, strict=True)):
                    self._fill(row, session, token, session.length + i)
                    index = start + i - first_with_logits
                    if index >= 0:
                        row.logits = address + 4 * index * self.vocab_size
                self._run(rows)
                session.length += len(chunk)
        return out

    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> NDArray[np.float32]:
        ids = self._check_tokens(tokens)
        if (
            len(ids) != len(sessions)
            or len(ids) > self.max_batch
            or len({id(session) for session in sessions}) != len(ids)
        ):
            raise UsageError(
                f"{len(ids)} tokens for {len(sessions)} sessions, "
                f"at most {self.max_batch}, each once"
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
                self._arena = abi.StructArena()
                self.model.close()
                # Drops the last references to the weights, which unmaps their files.
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

    def _check_tokens(self, tokens: Sequence[int] | NDArray[Any]) -> list[int]:
        ids = [int(token) for token in tokens]
        if not ids:
            raise UsageError("no tokens to run")
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(
                    f"token {token} is not in this model's vocabulary of {self.vocab_size}"
                )
        return ids

    @staticmethod
    def _check_room(session: Session, count: int) -> None:
        if session.length + count > session.capacity:
            raise UsageError(
                f"{session.length + count} tokens do not fit a session of {session.capacity}; "
                "shorten the prompt, ask for fewer tokens, or allow a longer context"
            )
