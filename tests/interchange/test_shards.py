"""Our safetensors are what the reference library reads, and depend on nothing but their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from featherweight.interchange.shards import LazyTensor, write_checkpoint, write_file
from featherweight.models.tensors import TensorFolder

TENSORS = {
    "b.codes": torch.arange(7, dtype=torch.uint8),
    "a.scale": torch.randn(3, 5).half(),
    "a.weight": torch.empty(0, dtype=torch.bfloat16),
    "norm": torch.randn(9),
    "bf": torch.randn(4, 2).bfloat16(),
    "number": torch.tensor(3, dtype=torch.int64),
    "flag": torch.tensor([True, False]),
    "strided": torch.randn(4, 6).T,
}


def lazy(tensors: dict[str, torch.Tensor]) -> list[LazyTensor]:
    return [LazyTensor(n, tuple(t.shape), t.dtype, lambda t=t: t) for n, t in tensors.items()]


def test_the_library_reads_what_was_written(tmp_path: Path) -> None:
    digest = write_file(tmp_path / "x.safetensors", lazy(TENSORS))
    found = load_file(tmp_path / "x.safetensors")
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype
    assert digest == hashlib.sha256((tmp_path / "x.safetensors").read_bytes()).hexdigest()
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_every_tensor_is_aligned_to_its_own_size(tmp_path: Path) -> None:
    write_file(tmp_path / "x.safetensors", lazy(TENSORS))
    data = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    assert length % 8 == 0
    for name, tensor in TENSORS.items():
        assert (
            json.loads(data[8 : 8 + length])[name]["data_offsets"][0] % tensor.dtype.itemsize == 0
        )


def test_the_order_of_the_tensors_does_not_show(tmp_path: Path) -> None:
    first = write_file(tmp_path / "a.safetensors", lazy(TENSORS))
    assert first == write_file(tmp_path / "b.safetensors", lazy(TENSORS)[::-1])


def test_shards_and_index(tmp_path: Path) -> None:
    tensors = {f"layer.{i}": torch.full((100,), float(i)) for i in range(10)}
    sums = write_checkpoint(tmp_path, lazy(tensors), limit=1000)
    assert len(sums) == 5
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4000
    assert set(index["weight_map"].values()) == set(sums)
    folder = TensorFolder(tmp_path)
    assert all(torch.equal(folder.read(name), tensor) for name, tensor in tensors.items())


def test_a_tensor_larger_than_a_shard_has_its_own(tmp_path: Path) -> None:
    sums = write_checkpoint(
        tmp_path, lazy({"a": torch.ones(9), "b": torch.ones(999), "c": torch.ones(9)}), limit=100
    )
    assert len(sums) == 3


def test_nothing_is_left_when_reading_fails(tmp_path: Path) -> None:
    def fail() -> torch.Tensor:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_checkpoint(tmp_path, [*lazy(TENSORS), LazyTensor("z", (1,), torch.float32, fail)])
    assert list(tmp_path.iterdir()) == []
