"""Reading and writing named tensors: lazy, atomic, and closed to anything truncated, missing or
contradictory.
"""

from __future__ import annotations

import json
import os
import random
import stat
import struct
from pathlib import Path

import pytest
import tiny
import torch

from featherweight.base.errors import BadInput
from featherweight.models.tensors import (
    INDEX,
    WEIGHTS_FILE,
    TensorFolder,
    require_finite,
    write_shard,
)


def tensors() -> dict[str, torch.Tensor]:
    return {
        "a.weight": torch.arange(12, dtype=torch.float32).view(3, 4),
        "a.codes": torch.arange(5, dtype=torch.uint8),
        "b.scale": torch.ones(2, dtype=torch.float16),
        "b.weight": torch.ones(2, 2, dtype=torch.bfloat16),
        "empty": torch.empty(0),
        "scalar": torch.tensor(3.0),
    }


def sharded(path: Path) -> Path:
    write_shard(
        path / "model-00001-of-00002.safetensors", {"a": torch.zeros(2), "b": torch.ones(3)}
    )
    write_shard(path / "model-00002-of-00002.safetensors", {"c": torch.ones(4)})
    where = {"a": "model-00001-of-00002.safetensors", "b": "model-00001-of-00002.safetensors"}
    where["c"] = "model-00002-of-00002.safetensors"
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return path


def change_index(path: Path, change: dict[str, str | None]) -> None:
    index = json.loads((path / INDEX).read_text())
    for name, file in change.items():
        index["weight_map"].pop(name, None)
        if file is not None:
            index["weight_map"][name] = file
    (path / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("as_file", [True, False])
def test_round_trip(tmp_path: Path, as_file: bool) -> None:
    write_shard(tmp_path / WEIGHTS_FILE, tensors(), {"recipe": "r"})
    folder = TensorFolder(tmp_path / WEIGHTS_FILE if as_file else tmp_path)
    assert sorted(folder.names()) == sorted(tensors()) and len(folder) == 6 and "a.codes" in folder
    assert folder.file_bytes == (tmp_path / WEIGHTS_FILE).stat().st_size
    assert folder.metadata() == {"format": "pt", "recipe": "r"}
    for name, tensor in tensors().items():
        assert folder.shape(name) == tuple(tensor.shape) and folder.dtype(name) == tensor.dtype
        assert torch.equal(folder.read(name), tensor)


def test_write_takes_views_and_parameters_and_leaves_nothing_beside(tmp_path: Path) -> None:
    base = torch.arange(12.0).view(3, 4)
    write_shard(tmp_path / WEIGHTS_FILE, {"t": base.T, "p": torch.nn.Parameter(base)})
    assert torch.equal(TensorFolder(tmp_path).read("t"), base.T)
    assert os.listdir(tmp_path) == [WEIGHTS_FILE]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / WEIGHTS_FILE).stat().st_mode) == 0o666 & ~mask


def test_reading_maps_the_file_and_writing_does_not_reach_it(tmp_path: Path) -> None:
    write_shard(tmp_path / WEIGHTS_FILE, {"a": torch.zeros(4)})
    folder = TensorFolder(tmp_path)
    folder.read("a").fill_(7)
    assert torch.equal(TensorFolder(tmp_path).read("a"), torch.zeros(4))


def test_sharded(tmp_path: Path) -> None:
    folder = TensorFolder(sharded(tmp_path))
    assert sorted(folder.names()) == ["a", "b", "c"] and folder.shape("c") == (4,)
    assert folder.file_bytes == sum(f.stat().st_size for f in tmp_path.glob("*.safetensors"))


def test_transformers_folder_reads_back(tmp_path: Path) -> None:
    model, _ = tiny.odd()
    model.save_pretrained(tmp_path, max_shard_size="200KB")
    folder = TensorFolder(tmp_path)
    assert len(folder.files) > 1
    for name, tensor in model.state_dict().items():
        assert torch.equal(folder.read(name), tensor)


def test_unknown_name_says_the_nearest(tmp_path: Path) -> None:
    write_shard(tmp_path / WEIGHTS_FILE, tensors())
    with pytest.raises(BadInput, match=r"a\.weigth.*nearest name is a\.weight"):
        TensorFolder(tmp_path).read("a.weigth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"d": "model-00002-of-00002.safetensors"}, "lacks tensor d"),
        ({"c": "model-00001-of-00002.safetensors"}, "lacks tensor c"),
        ({"b": None}, "holds tensor b"),
        ({"c": "model-00003-of-00002.safetensors"}, "model-00003-of-00002.safetensors is missing"),
        ({"c": "../model-00002-of-00002.safetensors"}, "not the name of a shard"),
        ({"c": "/etc/passwd"}, "not the name of a shard"),
    ],
)
def test_contradictory_index(tmp_path: Path, change: dict[str, str | None], message: str) -> None:
    change_index(sharded(tmp_path), change)
    with pytest.raises(BadInput, match=message):
        TensorFolder(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 3}}']
)
def test_broken_index(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(BadInput, match="index"):
        TensorFolder(tmp_path)


def test_missing_folder_weights_or_only_pickles(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        TensorFolder(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="no weights"):
        TensorFolder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(BadInput, match="pickled"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, -1])
def test_truncated(tmp_path: Path, keep: int) -> None:
    write_shard(tmp_path / WEIGHTS_FILE, tensors())
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    (tmp_path / WEIGHTS_FILE).write_bytes(whole[:keep])
    with pytest.raises(BadInput, match=r"model\.safetensors is truncated"):
        TensorFolder(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [2**62, 2**62], "data_offsets": [0, 4]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 2**63]}},
        {"w": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"../../w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {"w": [1, 2]},
    ],
)
def test_hostile_header(tmp_path: Path, header: dict[str, object]) -> None:
    text = json.dumps(header).encode()
    (tmp_path / WEIGHTS_FILE).write_bytes(struct.pack("<Q", len(text)) + text + bytes(4))
    with pytest.raises(BadInput, match=WEIGHTS_FILE):
        TensorFolder(tmp_path)


def test_flipped_header_bytes_give_an_error_or_the_same_names(tmp_path: Path) -> None:
    """Whatever a flip does, it is BadInput or a readable folder; never another exception."""
    write_shard(tmp_path / WEIGHTS_FILE, tensors())
    whole = (tmp_path / WEIGHTS_FILE).read_bytes()
    (header_bytes,) = struct.unpack("<Q", whole[:8])
    chance = random.Random(0)
    refused = 0
    for _ in range(200):
        at = chance.randrange(8 + header_bytes)
        changed = bytearray(whole)
        changed[at] ^= 1 << chance.randrange(8)
        path = tmp_path / "changed.safetensors"
        path.write_bytes(changed)
        try:
            folder = TensorFolder(path)
            for name in folder.names():
                folder.read(name)
        except BadInput:
            refused += 1
    assert refused > 100


def test_require_finite() -> None:
    require_finite(torch.full((4,), 3e38), "large")
    require_finite(torch.arange(3), "integers")
    for bad in (float("nan"), float("inf")):
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            with pytest.raises(BadInput, match=r"layers\.0\.q holds 1 non-finite"):
                require_finite(torch.tensor([1.0, bad], dtype=dtype), "layers.0.q")
