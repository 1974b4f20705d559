"""Reader of the GGUF container: metadata as plain Python values, tensors as slices of the mapped
file.

Layout (versions 2 and 3, little-endian): magic, version, number of tensors, number of key/value
pairs; the pairs; for each tensor its name, shape (fastest dimension first), type and offset;
padding; the data. Every length field is checked against the bytes that remain in the file before it
is used, so a truncated or hostile file costs no time or memory and ends as BadInput. `types.py`
says what the bytes of a tensor stand for. A model may be split over several files (`split.py`),
each a container of its own.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from ...base.errors import BadInput
from . import types
from .split import part_paths
from .types import StorageType

# Number of a metadata type in the file -> its code in `struct`.
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
class TensorInfo:
    """Where one tensor lies, in the file `part`; `shape` has the slowest dimension first, as in
    PyTorch.
    """

    shape: tuple[int, ...]
    storage: StorageType
    start: int
    num_bytes: int
    part: int = 0


class GGUFFile:
    """An open GGUF file.

    A path that is the first part of a split model stands for all its parts. Raises BadInput for
    anything that is not a complete, little-endian GGUF.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        parts = [_Part(part_path, number) for number, part_path in enumerate(part_paths(self.path))]
        self._data = [part.data for part in parts]
        self.values = parts[0].values
        self.tensors: dict[str, TensorInfo] = {}
        for number, part in enumerate(parts):
            count = part.values.get("split.count", 0)
            is_single = len(parts) == 1 and count in (0, 1)
            if not is_single and (count, part.values.get("split.no")) != (len(parts), number):
                raise BadInput(
                    f"{part.path} says that it is part {part.values.get('split.no')!r}, from 0, of "
                    f"the {count!r} of a split model, and its name says otherwise; rename it as "
                    "llama.cpp names parts, such as model-00001-of-00003.gguf"
                )
            if both := self.tensors.keys() & part.tensors.keys():
                raise BadInput(f"{part.path} holds tensor {min(both)}, as an earlier part does")
            self.tensors |= part.tensors
        num_tensors = self.values.get("split.tensors.count", len(self.tensors))
        if num_tensors != len(self.tensors):
            raise BadInput(
                f"{self.path}: the parts hold {len(self.tensors)} tensors and not {num_tensors!r}; "
                "fetch them again"
            )

    def read(self, name: str) -> Float32[np.ndarray, ...]:
        """The tensor `name` in float32: the exact products of its codes and scales.

        Raises BadInput when its storage type cannot be decoded.
        """
        info = self.tensors[name]
        raw = np.frombuffer(self._data[info.part], np.uint8, info.num_bytes, info.start)
        rows = math.prod(info.shape[:-1])
        try:
            return types.decode(raw.reshape(rows, -1), info.storage).reshape(info.shape)
        except NotImplementedError as error:
            raise BadInput(
                f"{self.path}: tensor {name} is stored as {info.storage.name}, which cannot be "
                "decoded here; use a file in another GGUF type, or the original model folder"
            ) from error

    def type_names(self) -> dict[str, str]:
        """The storage type of every tensor, such as Q4_1, by tensor name."""
        return {name: info.storage.name for name, info in self.tensors.items()}


class _Part:
    """One file: its metadata, and where its tensors lie."""

    def __init__(self, path: Path, number: int) -> None:
        self.path, self._number, self.data = path, number, _map(path)
        cursor = _Cursor(self.data, path)
        num_tensors, num_values = _header(cursor)
        self.values: dict[str, Any] = {}
        for _ in range(num_values):
            key = cursor.string()
            self.values[key] = cursor.value(cursor.number("I"))
        headers = [(cursor.string(), *_tensor_header(cursor)) for _ in range(num_tensors)]
        alignment = self.values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
            raise cursor.error(f"alignment {alignment!r}")
        base = -(-cursor.position // alignment) * alignment
        self.tensors = {
            name: self._info(name, shape, number, base + offset)
            for name, shape, number, offset in headers
        }
        if len(self.tensors) < num_tensors:
            raise cursor.error("a tensor name twice")
        self._check_overlaps()

    def _info(self, name: str, shape: tuple[int, ...], number: int, start: int) -> TensorInfo:
        try:
            storage = types.by_number(number)
        except KeyError as error:
            raise BadInput(
                f"{self.path}: tensor {name} has the unknown type {number}; update gguf"
            ) from error
        if not shape or 0 in shape or shape[-1] % storage.block:
            raise BadInput(
                f"{self.path}: tensor {name} of shape {shape} does not fit blocks of "
                f"{storage.block}; fetch it again"
            )
        num_bytes = storage.num_bytes(math.prod(shape))
        if start + num_bytes > len(self.data):
            raise BadInput(
                f"{self.path} is truncated: tensor {name} needs {start + num_bytes} bytes of file, "
                f"there are {len(self.data)}; fetch it again"
            )
        return TensorInfo(shape, storage, start, num_bytes, self._number)

    def _check_overlaps(self) -> None:
        """Raise BadInput when two tensors share bytes. That happens in a damaged file, and when the
        program that wrote the file uses another block size for a type.
        """
        infos = sorted(self.tensors.items(), key=lambda item: item[1].start)
        for (name, info), (next_name, next_info) in pairwise(infos):
            if info.start + info.num_bytes > next_info.start:
                raise BadInput(
                    f"{self.path}: tensors {name} ({info.storage.name}) and {next_name} overlap; "
                    "the file is damaged, or its blocks are not those of llama.cpp"
                )


class _Cursor:
    """Reads the file from front to back and raises BadInput instead of reading past its end."""

    def __init__(self, data: mmap.mmap, path: Path) -> None:
        self.data, self.path, self.position = data, path, 0

    def error(self, problem: str) -> BadInput:
        return BadInput(
            f"{self.path} is truncated or not a GGUF file ({problem} at byte {self.position}); "
            "fetch it again"
        )

    def take(self, num_bytes: int) -> bytes:
        if num_bytes > len(self.data) - self.position:
            raise self.error("it ends early")
        self.position += num_bytes
        return self.data[self.position - num_bytes : self.position]

    def number(self, code: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))[0]

    def string(self) -> str:
        text = self.take(self.number("Q"))
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise self.error("text that is not UTF-8") from error

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return list(self._array())
        if kind not in SCALARS:
            raise self.error(f"value type {kind}")
        return self.number(SCALARS[kind])

    def _array(self) -> Iterator[Any]:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            code = SCALARS[kind]
            size = struct.calcsize(f"<{code}")
            yield from (item for (item,) in struct.iter_unpack(f"<{code}", self.take(count * size)))
        elif kind == STRING:
            if count * 8 > len(self.data) - self.position:
                raise self.error("it ends early")
            for _ in range(count):
                yield self.string()
        else:
            raise self.error(f"array of type {kind}")


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
            f"{cursor.path} has GGUF version {version}; versions 2 and 3, little-endian, are "
            "supported"
        )
    return cursor.number("Q"), cursor.number("Q")


def _tensor_header(cursor: _Cursor) -> tuple[tuple[int, ...], int, int]:
    """Shape (slowest first), type and offset from the start of the data."""
    num_dimensions = cursor.number("I")
    if num_dimensions > MAX_DIMENSIONS:
        raise cursor.error(f"a tensor of {num_dimensions} dimensions")
    shape = tuple(cursor.number("Q") for _ in range(num_dimensions))
    return shape[::-1], cursor.number("I"), cursor.number("Q")
