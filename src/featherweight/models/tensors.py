"""Named tensors in safetensors files, which are mapped into memory and read one at a time.

A `TensorFolder` opens a file or a folder (one file, or shards with an index) and checks it before
it returns a tensor: the header of every file, that the file is as long as its header says, that the
index and the shards name the same tensors, and that no name leads outside the folder. Then `read`
returns a view of the mapped file: pages that are not read cost nothing, and pages that were read
are clean page cache, which the system can free when memory is short. A view starts at the tensor's
offset in the file, which safetensors aligns to 8 bytes; kernels must not assume a larger alignment.

The numbers are not checked here. Packed folders have checksums, and code that computes with weights
calls `require_finite`.
"""

from __future__ import annotations

import copy
import json
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..base.errors import BadInput
from ..base.files import write_atomic

WEIGHTS_FILE, INDEX = "model.safetensors", "model.safetensors.index.json"
# The allowed names of tensors. No name may look like a path, because callers may use it as the name
# of a file.
PLAIN_NAME = re.compile(r"(?!.*\.\.)[\w.:-]+")
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class TensorFolder:
    """The tensors of a `.safetensors` file or of a model folder, by name.

    Raises BadInput, which names the file and the tensor, for files that are missing, truncated or
    contradictory, and for a tensor of an unknown dtype.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.files = _files(self.path)
        self._handles = {file: _open(file) for file in self.files}
        self._file_of: dict[str, Path] = {}
        self._name_in_file: dict[str, str] = {}
        for file, handle in self._handles.items():
            for name in handle.keys():  # noqa: SIM118 - not a dict
                if not PLAIN_NAME.fullmatch(name):
                    raise BadInput(
                        f"{file} holds a tensor named {name[:80]!r}, which looks like a path; "
                        "fetch it again"
                    )
                if name in self._file_of:
                    raise BadInput(
                        f"tensor {name} is in two files: {self._file_of[name]} and {file}"
                    )
                self._file_of[name] = file
                self._name_in_file[name] = name
        self._check_index()

    def renamed(self, file_names: Mapping[str, str]) -> TensorFolder:
        """The tensors under other names: new name -> name in the files. Names that are not listed
        are left out.
        """
        view = copy.copy(self)
        view._file_of = {new: self._file_of[name] for new, name in file_names.items()}
        view._name_in_file = {new: self._name_in_file[name] for new, name in file_names.items()}
        return view

    def __contains__(self, name: str) -> bool:
        return name in self._file_of

    def __len__(self) -> int:
        return len(self._file_of)

    def names(self) -> list[str]:
        return list(self._file_of)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._slice(name).get_shape())

    def dtype(self, name: str) -> torch.dtype:
        dtype_name = self._slice(name).get_dtype()
        if dtype_name not in DTYPES:
            raise BadInput(
                f"{self._file_of[name]}: tensor {name} has dtype {dtype_name}, which is not "
                "supported"
            )
        return DTYPES[dtype_name]

    def read(self, name: str) -> Tensor:
        """The tensor as a view of the mapped file, on the CPU. Writing to it changes the memory of
        this process and never the file.
        """
        self.dtype(name)
        file = self._file_of[name]
        try:
            tensor: Tensor = self._handles[file].get_tensor(self._name_in_file[name])
        except (SafetensorError, RuntimeError, ValueError) as error:
            raise BadInput(
                f"{file}: tensor {name} cannot be read ({error}); fetch the file again"
            ) from error
        return tensor

    def metadata(self) -> dict[str, str]:
        """The metadata in the headers of all files. When two files have the same key, the value of
        the first file counts.
        """
        metadata: dict[str, str] = {}
        for handle in reversed(self._handles.values()):
            metadata.update(handle.metadata() or {})
        return metadata

    @property
    def file_bytes(self) -> int:
        """Bytes of the weight files on disk, headers included."""
        return sum(file.stat().st_size for file in self.files)

    def _slice(self, name: str) -> Any:
        if name not in self._file_of:
            matches = get_close_matches(name, self._file_of, n=1)
            hint = f"; the nearest name is {matches[0]}" if matches else ""
            raise BadInput(f"{self.path} has no tensor {name}{hint}")
        return self._handles[self._file_of[name]].get_slice(self._name_in_file[name])

    def _check_index(self) -> None:
        index = self.path / INDEX
        if self.path.is_file() or self.files == [self.path / WEIGHTS_FILE]:
            return
        indexed_files = _weight_map(index)
        for name, file in indexed_files.items():
            if self._file_of.get(name) != self.path / file:
                raise BadInput(
                    f"{self.path / file} lacks tensor {name}, which {index.name} promises; "
                    "fetch it again"
                )
        if extra_names := sorted(set(self._file_of) - set(indexed_files)):
            raise BadInput(
                f"{self._file_of[extra_names[0]]} holds tensor {extra_names[0]}, which "
                f"{index.name} does not name"
            )


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise BadInput(f"{path} does not exist")
    if (path / WEIGHTS_FILE).is_file():
        return [path / WEIGHTS_FILE]
    if (path / INDEX).is_file():
        return [path / file for file in sorted(set(_weight_map(path / INDEX).values()))]
    if any(path.glob("*.bin")) or any(path.glob("*.pt*")):
        raise BadInput(
            f"{path} holds pickled weights only; save the model as safetensors, nothing else is "
            "read"
        )
    raise BadInput(f"{path} holds no weights: neither {WEIGHTS_FILE} nor {INDEX} is there")


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor name -> file name of its shard.

    Raises BadInput for a file name that leads outside the folder, and for a missing shard.
    """
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        entries = dict(weight_map.items())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(
            f"{index} is not an index of safetensors shards ({error!r}); fetch it again"
        ) from error
    for name, file in entries.items():
        is_shard_name = (
            isinstance(file, str) and file == Path(file).name and file.endswith(".safetensors")
        )
        if not is_shard_name:
            raise BadInput(
                f"{index}: tensor {name} lies in {file!r}, which is not the name of a shard in the "
                "folder"
            )
        if not (index.parent / file).is_file():
            raise BadInput(
                f"{index.parent / file} is missing, and {index.name} needs it for {name}; "
                "fetch the shard"
            )
    if not entries:
        raise BadInput(f"{index} names no tensors")
    return entries


def _open(file: Path) -> Any:
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError, RuntimeError, ValueError) as error:
        raise BadInput(
            f"{file} is truncated or not a safetensors file ({error}); fetch it again"
        ) from error


def require_finite(tensor: Tensor, name: str) -> None:
    """Raise BadInput naming the tensor when it holds NaN or infinity."""
    # A finite sum proves that all numbers are finite, and it is cheap. The sum of finite numbers
    # may overflow, so otherwise every number is checked.
    if not tensor.is_floating_point() or bool(torch.isfinite(tensor.sum(dtype=torch.float32))):
        return
    if num := int((~torch.isfinite(tensor)).sum()):
        raise BadInput(
            f"{name} holds {num} non-finite values (NaN or infinity); the checkpoint is damaged"
        )


def write_shard(
    path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write `tensors` and `metadata` as one safetensors file. The file is written beside `path`,
    flushed and renamed, so that `path` never holds a part of it.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    def write(temporary: Path) -> None:
        save_file(contiguous, temporary, {"format": "pt", **(metadata or {})})
        os.chmod(
            temporary, 0o666 & ~_umask()
        )  # safetensors makes files that only their owner can read

    write_atomic(path, write)


def _umask() -> int:
    """The process's file mode mask; it can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
