"""Exports read again by the programs they are for: the very numbers of the packed model, or a
refusal that helps.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from featherweight.base.errors import BadInput, ExportFailed, UsageError
from featherweight.interchange.exports import HF, summaries
from featherweight.interchange.exports import base as exports
from featherweight.interchange.exports.base import export
from featherweight.interchange.packed import folder as packed
from featherweight.interchange.packed.model import PackedModel
from featherweight.quantization.formats import Int, Trellis
from featherweight.workflows.export_folder import export_folder


@pytest.mark.parametrize("make", tiny.ALL)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_hf_is_the_packed_model_decoded(
    tmp_path: Path, make: Callable[[], Any], dtype: torch.dtype, ids: torch.Tensor
) -> None:
    folder = exporting.pack(tmp_path / "packed", make, {"*": Int(bits=3)}, dtype=dtype)
    made = export_folder(folder, "hf", tmp_path / "plain")
    model, info = AutoModelForCausalLM.from_pretrained(made.path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert model.dtype == dtype
    expected = packed.load(folder)
    assert torch.equal(model(ids).logits, expected(ids).logits)
    assert AutoTokenizer.from_pretrained(made.path).get_vocab() == tiny.tokenizer().get_vocab()
    assert made.file_bytes == (made.path / "model.safetensors").stat().st_size
    assert "quantization_config" not in json.loads((made.path / "config.json").read_text())


def test_hf_undoes_rotations_and_decodes_any_format(
    tmp_path: Path, compress: Callable[..., Any], ids: torch.Tensor
) -> None:
    model, tokenizer = tiny.llama()
    folder = packed.save(
        compress(model, Trellis(bits=3), output="full"), tmp_path / "packed", tokenizer
    )
    made = export(PackedModel(folder), HF(), tmp_path / "plain")
    plain = AutoModelForCausalLM.from_pretrained(made.path)
    effective = model.get_submodule("model.layers.1.mlp.up_proj").effective()
    assert torch.equal(plain.get_submodule("model.layers.1.mlp.up_proj").weight, effective)
    assert torch.allclose(plain(ids).logits, model(ids).logits, atol=1e-4)


def test_every_tensor_once(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    model = PackedModel(folder)
    assert len(model.names) == len(set(model.names)) == 20
    assert "lm_head.weight" not in model.names


@pytest.mark.parametrize("to", summaries())
def test_a_difference_deletes_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    folder = exporting.pack(
        tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32, portable=True)}
    )
    read = PackedModel.read

    def wrong_once_written(self: PackedModel, name: str) -> torch.Tensor:
        tensor = read(self, name)
        writing = not any(tmp_path.glob(".out*/config.json")) and to != "gguf"
        return tensor if writing or "o_proj" not in name else tensor + tensor.abs().max()

    monkeypatch.setattr(PackedModel, "read", wrong_once_written)
    out = tmp_path / ("out.gguf" if to == "gguf" else "out")
    with pytest.raises(
        ExportFailed, match="numbers of .*o_proj.weight, read again, are not the model's"
    ) as error:
        export_folder(folder, to, out)
    assert error.value.exit_code == 5
    assert {path.name for path in tmp_path.iterdir()} == {"packed"}


def test_damage_is_found_before_the_work(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-7] ^= 1
    (folder / "model.safetensors").write_bytes(bytes(data))
    with pytest.raises(BadInput, match="was altered"):
        export_folder(folder, "hf", tmp_path / "out")


def test_what_cannot_be_asked(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    with pytest.raises(UsageError, match="did you mean 'gguf'"):
        export_folder(folder, "ggu", tmp_path / "out")
    with pytest.raises(UsageError, match="one file: name it like"):
        export_folder(folder, "gguf", tmp_path / "out")
    with pytest.raises(UsageError, match="about compressed-tensors"):
        export_folder(folder, "hf", tmp_path / "out", odd_bits=True)
    with pytest.raises(UsageError, match="packed folder itself"):
        export_folder(folder, "hf", folder, overwrite=True)
    plain = tiny.save(*tiny.llama(), tmp_path / "plain")
    with pytest.raises(BadInput, match="quantize` made"):
        export_folder(plain, "hf", tmp_path / "out")


def test_only_exports_are_replaced(tmp_path: Path) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    (tmp_path / "mine" / "photos").mkdir(parents=True)
    (tmp_path / "letter.gguf").write_text("Dear")
    with pytest.raises(UsageError, match="is no export"):
        export_folder(folder, "hf", tmp_path / "mine", overwrite=True)
    with pytest.raises(UsageError, match="is no export"):
        export_folder(folder, "gguf", tmp_path / "letter.gguf", overwrite=True)
    first = export_folder(folder, "hf", tmp_path / "out")
    with pytest.raises(UsageError, match="exists already"):
        export_folder(folder, "hf", tmp_path / "out")
    (first.path / "model.safetensors").unlink()
    export_folder(folder, "hf", tmp_path / "out", overwrite=True)
    assert load_file(tmp_path / "out" / "model.safetensors")


def test_a_tensor_too_many_or_too_few(tmp_path: Path, tamper: Callable[..., Path]) -> None:
    folder = exporting.pack(tmp_path / "packed", tiny.llama, {"*": Int(bits=4, group=32)})
    more = tamper(
        shutil.copytree(folder, tmp_path / "more"), lambda t: t.update(stray=torch.zeros(3))
    )
    with pytest.raises(BadInput, match="holds tensor stray"):
        export(PackedModel(more), HF(), tmp_path / "out")
    less = tamper(shutil.copytree(folder, tmp_path / "less"), lambda t: t.pop("model.norm.weight"))
    with pytest.raises(BadInput, match="lacks tensor model.norm.weight"):
        export(PackedModel(less), HF(), tmp_path / "out")


def test_compare_sees_one_number_and_takes_minus_zero_for_zero() -> None:
    a = torch.tensor([0.0, 1.0, 2.0])
    exports.compare("x", torch.tensor([-0.0, 1.0, 2.0]), a, Path("f"))
    with pytest.raises(ExportFailed, match="1 of 3 numbers"):
        exports.compare("x", torch.tensor([0.0, 1.0, 2.0000002]), a, Path("f"))
    with pytest.raises(ExportFailed, match="is \\(2,\\), not"):
        exports.compare("x", a[:2], a, Path("f"))
