"""Writes weights as safetensors files, one tensor in memory at a time, and returns the SHA-256 of
each file.

A checkpoint is one `model.safetensors` up to `limit` bytes, else numbered shards and an index. The
bytes depend only on names, dtypes, shapes and values: inside a file, tensors are sorted by dtype,
the widest first (so that every tensor is aligned to the size of its numbers), then by name; the
header holds no times and no versions. The data of the first tensor begin at a multiple of the cache
line (64 bytes). The codes of packed weights begin at such a multiple too, because their sizes are
multiples of it.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..base.files import write_atomic
from ..models.tensors import DTYPES, INDEX, WEIGHTS_FILE

LIMIT_BYTES = 5_000_000_000
LINE_BYTES = 64
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LazyTensor:
    """A tensor that will be written; `read` is called once, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_checkpoint(
    folder: Path, tensors: Sequence[LazyTensor], limit: int = LIMIT_BYTES
) -> dict[str, str]:
    """Write all `tensors` into `folder`; returns file name -> SHA-256 (weights files only)."""
    shards = _split(sorted(tensors, key=lambda tensor: tensor.name), limit)
    if len(shards) == 1:
        return {WEIGHTS_FILE: write_file(folder / WEIGHTS_FILE, shards[0])}
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    sums = {
        name: write_file(folder / name, shard) for name, shard in zip(names, shards, strict=True)
    }
    index = {
        "metadata": {"total_size": sum(tensor.num_bytes for tensor in tensors)},
        "weight_map": {
            tensor.name: name for name, shard in zip(names, shards, strict=True) for tensor in shard
        },
    }
    write_atomic(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return sums


def write_file(path: Path, tensors: Sequence[LazyTensor]) -> str:
    """Write one safetensors file atomically; returns its SHA-256."""
    tensors = sorted(tensors, key=lambda tensor: (-tensor.dtype.itemsize, tensor.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for tensor in tensors:
        end = offset + tensor.num_bytes
        header[tensor.name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % LINE_BYTES)
    digest = hashlib.sha256()

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            for chunk in (len(text).to_bytes(8, "little"), text):
                file.write(chunk)
                digest.update(chunk)
            for tensor in tensors:
                data = _bytes(tensor)
                file.write(data)
                digest.update(data)

    write_atomic(path, fill)
    return digest.hexdigest()


def _bytes(tensor: LazyTensor) -> memoryview:
    values = tensor.read()
    assert tuple(values.shape) == tuple(tensor.shape) and values.dtype == tensor.dtype, tensor.name
    return values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _split(tensors: Sequence[LazyTensor], limit: int) -> list[list[LazyTensor]]:
    shards: list[list[LazyTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if shards[-1] and size + tensor.num_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += tensor.num_bytes
    return shards
