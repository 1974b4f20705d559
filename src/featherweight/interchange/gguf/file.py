"""The GGUF container, read with bounds: metadata as plain Python values, tensors as slices of the
mapped file.

Layout (versions 2 and 3, little-endian): magic, version, number of tensors, number of key/value
pairs; the pairs; for each tensor its name, shape (fastest dimension first), type and offset;
padding; the data. Everything a length field says is checked against what is left of the file before
it is believed, so a truncated or hostile file costs no time or memory and ends as BadInput. Blocks
are decoded by `gguf.quants`, the format's own package, which supports every type that llama.cpp
writes.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ...base.errors import BadInput, UsageError

SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
STRING, ARRAY = 8, 9
MAX_DIMENSIONS = 4


@dataclass(frozen=True)
class Entry:
    """Where one tensor lies; `shape` has the slowest dimension first, as in PyTorch."""

    shape: tuple[int, ...]
    type: int
    start: int
    num_bytes: int


class GGUFFile:
    """`values`: metadata by key (arrays as lists). `entries`: tensors by name. `read` decodes one
    to float32.

    Raises BadInput for anything that is not a whole, single-file, little-endian GGUF.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self._package = package()
        self._data = _map(self.path)
        cursor = _Cursor(self._data, self.path)
        num_tensors, num_values = _header(cursor)
        self.values: dict[str, Any] = {}
        for _ in range(num_values):
            key = cursor.string()
            self.values[key] = cursor.value(cursor.number("I"))
        if self.values.get("split.count", 0) > 1:
            raise BadInput(
                f"{self.path} is one part of a split GGUF; merge the parts with llama-gguf-split first"
            )
        infos = [(cursor.string(), *_tensor_info(cursor)) for _ in range(num_tensors)]
        alignment = self.values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise cursor.broken(f"alignment {alignment!r}")
        base = -(-cursor.at // alignment) * alignment
        self.entries = {
            name: self._entry(name, shape, type_, base + offset)
            for name, shape, type_, offset in infos
        }
        if len(self.entries) < num_tensors:
            raise cursor.broken("a tensor name twice")

    def read(self, name: str) -> Float32[np.ndarray, ...]:
        """The tensor in float32, exactly the values that its codes and scales stand for."""
        entry = self.entries[name]
        kind = self._package.GGMLQuantizationType(entry.type)
        raw = np.frombuffer(self._data, np.uint8, entry.num_bytes, entry.start)
        if kind.name in ("F32", "F16", "F64"):
            decoded = raw.view({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[kind.name])
        else:
            rows = math.prod(entry.shape[:-1])
            try:
                with np.errstate(
                    all="ignore"
                ):  # whoever uses the values checks that they are finite
                    decoded = self._package.quants.dequantize(raw.reshape(rows, -1), kind)
            except NotImplementedError as error:
                raise BadInput(
                    f"{self.path}: tensor {name} is stored as {kind.name}, which cannot be decoded here; "
                    "use a file in another GGUF type, or the original model folder"
                ) from error
        return np.ascontiguousarray(decoded, np.float32).reshape(entry.shape)

    def type_names(self) -> dict[str, str]:
        """The storage type of every tensor, such as Q4_1, by tensor name."""
        return {
            name: self._package.GGMLQuantizationType(entry.type).name
            for name, entry in self.entries.items()
        }

    def _entry(self, name: str, shape: tuple[int, ...], type_: int, start: int) -> Entry:
        try:
            block, block_bytes = self._package.GGML_QUANT_SIZES[
                self._package.GGMLQuantizationType(type_)
            ]
        except (ValueError, KeyError) as error:
            raise BadInput(
                f"{self.path}: tensor {name} has the unknown type {type_}; update gguf"
            ) from error
        if not shape or shape[-1] % block:
            raise BadInput(
                f"{self.path}: tensor {name} of shape {shape} does not fit blocks of {block}; fetch it again"
            )
        num_bytes = math.prod(shape) // block * block_bytes
        if start + num_bytes > len(self._data):
            raise BadInput(
                f"{self.path} is truncated: tensor {name} needs {start + num_bytes} bytes of file, "
                f"there are {len(self._data)}; fetch it again"
            )
        return Entry(shape, type_, start, num_bytes)


def package() -> Any:
    """The `gguf` package. Raises UsageError with the command that installs it."""
    try:
        import gguf
    except ImportError as error:
        raise UsageError("reading GGUF files needs the gguf package: pip install gguf") from error
    return gguf


class _Cursor:
    """Reads forward through the file and refuses to leave it."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def broken(self, what: str) -> BadInput:
        return BadInput(
            f"{self.path} is truncated or not a GGUF file ({what} at byte {self.at}); fetch it again"
        )

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > len(self.data) - self.at:
            raise self.broken("it ends early")
        self.at += num_bytes
        return self.data[self.at - num_bytes : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        text = self.take(self.number("Q"))
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise self.broken("text that is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return list(self._array())
        if kind not in SCALARS:
            raise self.broken(f"value type {kind}")
        return self.number(SCALARS[kind])

    def _array(self) -> Iterator[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            code = SCALARS[kind]
            size = struct.calcsize(f"<{code}")
            yield from (item for (item,) in struct.iter_unpack(f"<{code}", self.take(count * size)))
        elif kind == STRING:
            if count * 8 > len(self.data) - self.at:
                raise self.broken("it ends early")
            for _ in range(count):
                yield self.string()
        else:
            raise self.broken(f"array of type {kind}")


def _map(path: Path) -> mmap.mmap:
    if not path.is_file():
        raise BadInput(f"{path} does not exist")
    with open(path, "rb") as file:
        try:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError as error:
            raise BadInput(f"{path} is empty; fetch it again") from error


def _header(cursor: _Cursor) -> tuple[int, int]:
    """Number of tensors and of key/value pairs."""
    if cursor.take(4) != b"GGUF":
        raise BadInput(f"{cursor.path} is not a GGUF file")
    version = cursor.number("I")
    if version not in (2, 3):
        raise BadInput(
            f"{cursor.path} has GGUF version {version}; versions 2 and 3, little-endian, are supported"
        )
    return cursor.number("Q"), cursor.number("Q")


def _tensor_info(cursor: _Cursor) -> tuple[tuple[int, ...], int, int]:
    """Shape (slowest first), type and offset from the start of the data."""
    num_dimensions = cursor.number("I")
    if num_dimensions > MAX_DIMENSIONS:
        raise cursor.broken(f"a tensor of {num_dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(num_dimensions))
    return shape[::-1], cursor.number("I"), cursor.number("Q")
