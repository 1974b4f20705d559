"""Named tensors on disk without torch: safetensors files are mapped into memory, and each tensor is
a view of the file's bytes.

The native engine uses this module instead of `TensorFolder`, because it must start within a second
and does not import torch. Only the header of a file is read; its lengths, offsets, dtypes and names
are checked, and that tensors neither overlap nor leave gaps. If a file shrinks while it is mapped,
the next access kills the process, so callers call `check_unchanged` before each use.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput

WEIGHTS_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
ITEM_BYTES = {
    "F64": 8,
    "I64": 8,
    "U64": 8,
    "F32": 4,
    "I32": 4,
    "U32": 4,
    "F16": 2,
    "BF16": 2,
    "I16": 2,
    "U16": 2,
    "I8": 1,
    "U8": 1,
    "BOOL": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
}
# numpy's name of each dtype. numpy has no bfloat16, so its numbers are read as 16-bit integers.
NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "U8": "u1",
    "I8": "i1",
    "I32": "<i4",
    "I64": "<i8",
}
LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class MappedTensor:
    """One tensor: the name of its dtype in the file, its shape, and a view of its bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: NDArray[np.uint8]

    def array(self) -> NDArray[Any]:
        """The numbers as a numpy view; bfloat16 as uint16. The view is as aligned as the data in
        the file.
        """
        if self.dtype not in NUMPY:
            raise BadInput(f"a tensor of {self.dtype} cannot be read without PyTorch")
        return self.data.view(NUMPY[self.dtype]).reshape(self.shape)


class _File:
    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                self.status = os.fstat(file.fileno())
                if self.status.st_size < 8:
                    raise BadInput(
                        f"{path} is no safetensors file: it has {self.status.st_size} bytes"
                    )
                self.map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                self.descriptor = os.dup(file.fileno())
        except OSError as error:
            raise BadInput(f"{path} cannot be read: {error.strerror}") from error
        self.bytes: NDArray[np.uint8] = np.frombuffer(self.map, np.uint8)

    def check_unchanged(self) -> None:
        status = os.fstat(self.descriptor)
        if (status.st_size, status.st_mtime_ns) != (self.status.st_size, self.status.st_mtime_ns):
            raise BadInput(f"{self.path} was changed while it was in use; load the model again")

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class MappedFolder:
    """The tensors of a model folder by name, mapped into memory.

    Raises BadInput, which names the file and the tensor, for missing or contradictory files.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        self._files = [_File(path) for path in _paths(folder)]
        self.tensors: dict[str, MappedTensor] = {}
        for file in self._files:
            for name, tensor in read_header(file.bytes, str(file.path)).items():
                if name in self.tensors:
                    raise BadInput(f"tensor {name} is in two files of {folder}")
                self.tensors[name] = tensor

    @property
    def num_bytes(self) -> int:
        return sum(file.status.st_size for file in self._files)

    def check_unchanged(self) -> None:
        """Raise BadInput when a file has another size or modification time than when it was
        mapped.
        """
        for file in self._files:
            file.check_unchanged()

    def close(self) -> None:
        """Close the files; views that are still in use keep their mapping."""
        for file in self._files:
            file.close()


def read_header(data: NDArray[np.uint8], origin: str) -> dict[str, MappedTensor]:
    """The tensors of a safetensors file that is in memory (or mapped) as `data`.

    Raises BadInput, which names the file `origin`, when lengths, offsets and dtypes contradict each
    other.
    """
    length = int.from_bytes(data[:8].tobytes(), "little")
    if length > min(LONGEST_HEADER, len(data) - 8):
        raise BadInput(
            f"{origin}: its header claims {length} bytes, more than the file holds; fetch it again"
        )
    try:
        header = json.loads(data[8 : 8 + length].tobytes())
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{origin}: its header is not JSON ({error}); fetch it again") from error
    if not isinstance(header, Mapping):
        raise BadInput(f"{origin}: its header is not a JSON object")
    body = data[8 + length :]
    tensors = {
        name: _read_entry(name, entry, body, origin)
        for name, entry in header.items()
        if name != "__metadata__"
    }
    spans = sorted(tuple(header[name]["data_offsets"]) for name in tensors)
    if any(a[1] > b[0] for a, b in pairwise(spans)):
        raise BadInput(f"{origin}: two of its tensors overlap; fetch it again")
    if (spans[-1][1] if spans else 0) != len(body):
        raise BadInput(
            f"{origin} is {len(body)} bytes of tensors long, its header says otherwise; "
            "fetch it again"
        )
    return tensors


def _read_entry(name: str, entry: Any, body: NDArray[np.uint8], origin: str) -> MappedTensor:
    message = f"{origin}: tensor {name[:80]!r} has an impossible description; fetch it again"
    if not isinstance(entry, Mapping):
        raise BadInput(message)
    dtype: Any
    shape: Any
    offsets: Any
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if (
        not isinstance(dtype, str)
        or dtype not in ITEM_BYTES
        or not _are_lengths(shape)
        or not _are_lengths(offsets)
        or len(offsets) != 2
    ):
        raise BadInput(message)
    begin, end = offsets
    if not begin <= end <= len(body) or math.prod(shape) * ITEM_BYTES[dtype] != end - begin:
        raise BadInput(message)
    return MappedTensor(dtype, tuple(shape), body[begin:end])


def _are_lengths(values: Any) -> bool:
    return (
        isinstance(values, list)
        and len(values) <= 16
        and all(type(n) is int and 0 <= n < 1 << 48 for n in values)
    )


def _paths(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if not (folder / INDEX).is_file():
        raise BadInput(f"{folder} holds no weights: neither {WEIGHTS_FILE} nor {INDEX} is there")
    try:
        names = json.loads((folder / INDEX).read_bytes())["weight_map"].values()
        paths = sorted({str(name) for name in names})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{folder / INDEX} cannot be read: {error}") from error
    if any(Path(name).name != name for name in paths):
        raise BadInput(f"{folder / INDEX} names a file outside the folder")
    return [folder / name for name in paths]
