"""Weights written as safetensors, one tensor in memory at a time, with the SHA-256 of each file.

A checkpoint is one `model.safetensors` up to `limit` bytes, else numbered shards and an index. The
bytes depend on nothing but names, dtypes, shapes and values: inside a file wider dtypes come first
(so that every tensor lies aligned to its own size), then names in order; the header holds no times
and no versions. The first tensor begins with a line of the cache, and so do the codes of packed
weights, whose sizes are whole lines.
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
class Entry:
    """A tensor to be written: `read` is called once, when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_checkpoint(
    folder: Path, entries: Sequence[Entry], limit: int = LIMIT_BYTES
) -> dict[str, str]:
    """Write all `entries` into `folder`; returns file name -> SHA-256 (weights files only)."""
    shards = _split(sorted(entries, key=lambda entry: entry.name), limit)
    if len(shards) == 1:
        return {WEIGHTS_FILE: write_file(folder / WEIGHTS_FILE, shards[0])}
    names = [f"model-{i:05d}-of-{len(shards):05d}.safetensors" for i in range(1, len(shards) + 1)]
    sums = {
        name: write_file(folder / name, shard) for name, shard in zip(names, shards, strict=True)
    }
    index = {
        "metadata": {"total_size": sum(entry.num_bytes for entry in entries)},
        "weight_map": {
            entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard
        },
    }
    write_atomic(folder / INDEX, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return sums


def write_file(path: Path, entries: Sequence[Entry]) -> str:
    """Write one safetensors file atomically; returns its SHA-256."""
    entries = sorted(entries, key=lambda entry: (-entry.dtype.itemsize, entry.name))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        end = offset + entry.num_bytes
        header[entry.name] = {
            "dtype": NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % LINE_BYTES)
    digest = hashlib.sha256()

    def fill(temporary: Path) -> None:
        with open(temporary, "wb") as file:
            for piece in (len(text).to_bytes(8, "little"), text):
                file.write(piece)
                digest.update(piece)
            for entry in entries:
                data = _bytes(entry)
                file.write(data)
                digest.update(data)

    write_atomic(path, fill)
    return digest.hexdigest()


def _bytes(entry: Entry) -> memoryview:
    tensor = entry.read()
    assert tuple(tensor.shape) == tuple(entry.shape) and tensor.dtype == entry.dtype, entry.name
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _split(entries: Sequence[Entry], limit: int) -> list[list[Entry]]:
    shards: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.num_bytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.num_bytes
    return shards
