"""Every storage type that llama.cpp writes weights in is read, as llama.cpp's own numbers."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest
from llama_server import dequantize

from featherweight.base.errors import BadInput
from featherweight.interchange.gguf import types
from featherweight.interchange.gguf.file import GGUFFile
from featherweight.interchange.gguf.types import StorageType

FLOATS = {"F32", "F16", "BF16", "F64"}
# Blocks, with the places of their two-byte floats: random bytes there may be infinite.
BLOCKS: dict[str, tuple[int, ...]] = {
    "Q1_0": (0,),
    "Q2_0": (0,),
    "Q4_0": (0,),
    "Q4_1": (0, 2),
    "Q5_0": (0,),
    "Q5_1": (0, 2),
    "Q8_0": (0,),
    "Q2_K": (80, 82),
    "Q3_K": (108,),
    "Q4_K": (0, 2),
    "Q5_K": (0, 2),
    "Q6_K": (208,),
    "IQ1_S": (0,),
    "IQ1_M": (),
    "IQ2_XXS": (0,),
    "IQ2_XS": (0,),
    "IQ2_S": (0,),
    "IQ3_XXS": (0,),
    "IQ3_S": (0,),
    "IQ4_NL": (0,),
    "IQ4_XS": (0,),
    "TQ1_0": (52,),
    "TQ2_0": (64,),
    "MXFP4": (),
    "NVFP4": (),
}
# Results of intermediate steps, and integers: no file stores weights so.
NO_WEIGHTS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64"}


def blocks(storage: StorageType, num: int) -> np.ndarray:
    """Random blocks with scales from -1 to 1."""
    random = np.random.default_rng(storage.number)
    data = random.integers(0, 256, (num, storage.block_bytes), dtype=np.uint8)
    for place in BLOCKS[storage.name]:
        scales = random.uniform(-1, 1, num).astype("<f2")
        data[:, place : place + 2] = scales[:, None].view(np.uint8)
    if storage.name == "IQ1_M":  # its scale is spread over the high bits of eight bytes
        data[:, 49::2] &= 0x0F
        data[:, 55] |= 0x30
    if storage.name == "MXFP4":  # a power of two
        data[:, 0] = random.integers(120, 130, num)
    return data


def file_of(path: Path, storage: StorageType, data: np.ndarray) -> GGUFFile:
    """A file with one tensor `x` of two rows, and a vector after it."""
    writer = gguf.GGUFWriter(path, "llama")
    shape = (2, len(data) // 2 * storage.block)
    writer.add_tensor_info("x", shape, np.dtype(np.float32), data.nbytes, storage.number)
    writer.add_tensor_info("y", (256,), np.dtype(np.float32), 1024)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.write_tensor_data(data)
    writer.write_tensor_data(np.arange(256, dtype=np.float32))
    writer.close()
    return GGUFFile(path)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_are_read(tmp_path: Path, name: str) -> None:
    storage = types.by_name(name)
    data = blocks(storage, 34)
    file = file_of(tmp_path / "x.gguf", storage, data)
    assert file.type_names() == {"x": name, "y": "F32"}
    numbers = file.read("x")
    assert numbers.shape == (2, 17 * storage.block) and numbers.dtype == np.float32
    assert np.isfinite(numbers).all() and len(np.unique(numbers)) > 2
    assert np.array_equal(file.read("y"), np.arange(256))
    if name not in types.DECODERS:
        package = gguf.quants.dequantize(data, gguf.GGMLQuantizationType[name])
        assert np.array_equal(numbers.reshape(-1), package.reshape(-1))


@pytest.mark.parametrize("name", BLOCKS)
def test_llama_cpp_reads_the_same_numbers(name: str) -> None:
    storage = types.by_name(name)
    data = blocks(storage, 34)
    theirs = dequantize(name, data, 34 * storage.block)
    assert np.array_equal(types.decode(data, storage).reshape(-1), theirs)


def test_no_type_is_left_out() -> None:
    """A type that a newer gguf package brings is added to one of the three lists."""
    names = {kind.name for kind in gguf.GGMLQuantizationType}
    assert names - NO_WEIGHTS - FLOATS <= set(BLOCKS)
    decodable = {kind.name for kind in gguf.quants._type_traits}
    assert decodable <= set(BLOCKS) | FLOATS
    assert {types.by_name("Q1_0").number, types.by_name("Q2_0").number} == {41, 42}


@pytest.mark.parametrize("name", sorted(FLOATS))
def test_floats_are_read(name: str) -> None:
    values = np.array([[1.0, -0.5, 3.140625, 65280.0]])  # exact in all of them
    raw = values.astype({"F16": "<f2", "F64": "<f8"}.get(name, "<f4")).view(np.uint8)
    if name == "BF16":  # the upper halves of float32
        raw = raw.reshape(-1, 4)[:, 2:].reshape(1, -1)
    numbers = types.decode(np.ascontiguousarray(raw), types.by_name(name))
    assert numbers.dtype == np.float32 and np.array_equal(numbers, values)


@pytest.mark.parametrize("name", sorted(NO_WEIGHTS))
def test_types_without_weights_are_refused(tmp_path: Path, name: str) -> None:
    storage = types.by_name(name)
    data = np.zeros((2, storage.block_bytes), np.uint8)
    with pytest.raises(BadInput, match=f"x is stored as {name}, which cannot be decoded"):
        file_of(tmp_path / "x.gguf", storage, data).read("x")


def test_two_bit_codes_in_order() -> None:
    """Weight 4 b + j lies in the bits 2 j and 2 j + 1 of byte b, and means (code - 1) d."""
    block = np.zeros((1, 18), np.uint8)
    block[0, :2] = np.frombuffer(np.float16(0.5).tobytes(), np.uint8)
    block[0, 2], block[0, 17] = 0b11100100, 0b00000001
    numbers = types.decode(block, types.by_name("Q2_0"))[0]
    assert numbers[:5].tolist() == [-0.5, 0.0, 0.5, 1.0, -0.5]
    assert numbers[60:].tolist() == [0.0, -0.5, -0.5, -0.5]


def test_blocks_of_another_size_under_the_same_number_are_refused(tmp_path: Path) -> None:
    """An early draft of type 42 had blocks of 128 weights in 34 bytes: its tensors overlap."""
    draft = StorageType("Q2_0", 42, 128, 34)
    data = np.zeros((64, 34), np.uint8)
    with pytest.raises(BadInput, match=r"x \(Q2_0\) and y overlap; .* not those of llama.cpp"):
        file_of(tmp_path / "x.gguf", draft, data)
