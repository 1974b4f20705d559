"""compressed-tensors exports: transformers, with the format's own package, reads the same bits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from featherweight.base.errors import UsageError
from featherweight.interchange.exports.compressed_tensors import pack, unpack
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.packed.model import PackedModel
from featherweight.quantization.formats import Int, Ternary, Trellis
from featherweight.quantization.formats.base import Format
from featherweight.workflows.export_folder import export_folder

BITS = {
    2: Int(bits=2, portable=True),
    4: Int(bits=4, group=32, portable=True),
    8: Int(bits=8, portable=True),
}


def judged(folder: Path) -> Any:
    """The model that transformers makes of an export, decompressed by the format's own package at
    the first forward.
    """
    pytest.importorskip("compressed_tensors")
    model, info = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    model(torch.zeros(1, 1, dtype=torch.long))
    return model


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("make", "dtype", "plan"),
    [
        (tiny.llama, torch.bfloat16, {"*": BITS[4]}),
        (tiny.llama, torch.float32, {"*.down_proj": BITS[8], "*": BITS[4]}),
        (
            tiny.qwen3,
            torch.bfloat16,
            {"lm_head": BITS[8], "model.embed_tokens": None, "*": BITS[8]},
        ),
        (tiny.qwen3, torch.float16, {"*": Ternary(group=32)}),
        (tiny.gemma3, torch.bfloat16, {"*": BITS[2]}),
        (tiny.odd, torch.float32, {"*": Int(bits=4, group=2)}),
    ],
    ids=["llama-4", "llama-4-and-8", "qwen3-8-head", "qwen3-ternary", "gemma3-2", "odd-4"],
)
def test_transformers_reads_the_same_model(
    tmp_path: Path,
    make: Callable[[], Any],
    dtype: torch.dtype,
    plan: dict[str, Format | None],
    ids: torch.Tensor,
) -> None:
    folder = exporting.pack(tmp_path / "packed", make, plan, dtype=dtype)
    made = export_folder(folder, "compressed-tensors", tmp_path / "out")
    read, model, expected = judged(made.path), PackedModel(folder), packed.load(folder)
    assert read.dtype == dtype
    found = read.state_dict()
    for name in model.names:
        assert torch.equal(found[name], model.read(name).to(dtype)), name
    assert torch.equal(read(ids).logits, expected(ids).logits)


def test_words_are_those_of_the_format() -> None:
    assert pack(np.array([[1, 2]]) + 128, 8).tolist() == [
        [33409]
    ]  # two codes in one word, the first one lowest
    assert pack(np.array([[1, 2, 3, 15]]), 4).tolist() == [[0xF321]]


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("columns", [1, 31, 32, 64, 75])
def test_packing_comes_back_and_agrees_with_the_judge(bits: int, columns: int) -> None:
    codes = np.random.default_rng(0).integers(0, 1 << bits, (5, columns))
    words = pack(codes, bits)
    assert words.shape == (5, -(-columns * bits // 32))
    assert np.array_equal(unpack(words, columns, bits), codes)
    judge = pytest.importorskip("compressed_tensors.compressors.pack_quantized.helpers")
    levels = torch.from_numpy(codes - (1 << (bits - 1))).to(torch.int8)
    assert np.array_equal(judge.pack_to_int32(levels, bits).numpy(), words)


def test_what_the_files_hold(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": BITS[4]}, dtype=torch.bfloat16)
    made = export_folder(folder, "compressed-tensors", tmp_path / "out")
    tensors = load_file(made.path / "model.safetensors")
    name = "model.layers.0.mlp.down_proj.weight"
    assert (
        tensors[f"{name}_packed"].shape == (64, 16)
        and tensors[f"{name}_packed"].dtype == torch.int32
    )
    assert (
        tensors[f"{name}_scale"].shape == (64, 4)
        and tensors[f"{name}_scale"].dtype == torch.bfloat16
    )
    assert tensors[f"{name}_shape"].tolist() == [64, 128] and name not in tensors
    described = json.loads((made.path / "config.json").read_text())["quantization_config"]
    assert described["ignore"] == ["lm_head"] and described["config_groups"]["group_0"][
        "targets"
    ] == ["Linear"]
    assert (made.path / "tokenizer.json").is_file()
    assert made.types == {"4 bits": 14, "bfloat16": 6}


def test_two_bits_say_who_reads_them(tmp_path: Path) -> None:
    made = export_folder(
        exporting.pack(tmp_path / "packed", tiny.llama, {"*": BITS[2]}),
        "compressed-tensors",
        tmp_path / "out",
    )
    assert "2 bits: vLLM only" in made.notes
    assert "2 bits: vLLM only" in (made.path / "README.md").read_text()


@pytest.mark.parametrize(
    ("plan", "tables", "message"),
    [
        (
            {"*": Trellis(bits=2)},
            None,
            r"q_proj, Trellis\(bits=2\): no scaled integers; the nearest is Int\(bits=4",
        ),
        (
            {"*": Int(bits=4)},
            Int(bits=8),
            r"embed_tokens, Int\(bits=8\): tables are not compressed .* --to gguf",
        ),
        (
            {"*": Int(bits=4, symmetric=False)},
            None,
            "zero points; symmetric codes are the nearest;.*more layers",
        ),
        (
            {"*": Int(bits=3)},
            None,
            "3-bit codes are packed differently by different releases; 4 bits are the nearest",
        ),
        (
            {"*": Int(bits=4, group=32)},
            None,
            "scales are not exact in the model's torch.bfloat16; portable=True makes",
        ),
        (
            {"*.k_proj": BITS[8], "*": BITS[4]},
            None,
            "q_proj, .*v_proj read one input, so runtimes fuse them",
        ),
    ],
    ids=["trellis", "table", "asymmetric", "three", "scales", "fused"],
)
def test_refused_with_the_nearest_way(
    tmp_path: Path, plan: dict[str, Format | None], tables: Format | None, message: str
) -> None:
    folder = exporting.pack(
        tmp_path / "packed", tiny.llama, plan, tables=tables, dtype=torch.bfloat16
    )
    with pytest.raises(UsageError, match=message) as error:
        export_folder(folder, "compressed-tensors", tmp_path / "out")
    assert error.value.exit_code == 2
    assert {path.name for path in tmp_path.iterdir()} == {"packed"}


@pytest.mark.filterwarnings("ignore")
def test_three_bits_when_asked(tmp_path: Path, ids: torch.Tensor) -> None:
    folder = exporting.pack(
        tmp_path / "packed", tiny.llama, {"*": Int(bits=3, group=32, portable=True)}
    )
    made = export_folder(folder, "compressed-tensors", tmp_path / "out", odd_bits=True)
    assert "3 bits: readers of compressed-tensors 0.18 and later only" in made.notes
    assert torch.equal(judged(made.path)(ids).logits, packed.load(folder)(ids).logits)
