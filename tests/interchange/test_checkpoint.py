"""Checkpoints as others write them fill the same parameters as in transformers, or are refused by
name before any work.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import featherweight as fw
from featherweight.base.errors import BadInput
from featherweight.interchange import loading
from featherweight.interchange.source import Source
from featherweight.workflows.quantize_folder import quantize_folder

Tensors = dict[str, torch.Tensor]
TABLE = "model.embed_tokens.weight"
RECIPE = {"bits": 4, "preset": "portable"}


def rewrite(folder: Path, change: Callable[[Tensors], Mapping[str, torch.Tensor]]) -> Path:
    """Replace the tensors of a model folder by what `change` makes of them."""
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    save_file(dict(change(tensors)), file, metadata={"format": "pt"})
    return folder


def with_old_buffers(tensors: Tensors) -> Tensors:
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    return tensors | {name.format(index): torch.ones(8) for index in range(2)}


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("model."): tensor for name, tensor in tensors.items()}


def with_equal_head(tensors: Tensors) -> Tensors:
    return tensors | {"lm_head.weight": tensors[TABLE].clone()}


def with_head_only(tensors: Tensors) -> Tensors:
    return {("lm_head.weight" if name == TABLE else name): t for name, t in tensors.items()}


def with_other_head(tensors: Tensors) -> Tensors:
    return tensors | {"lm_head.weight": tensors[TABLE].flip(0).contiguous()}


CHANGES = [with_old_buffers, without_prefix, with_equal_head, with_head_only, with_other_head]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.save(*tiny.llama(), tmp_path / "source")


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 43)[None]
    with torch.no_grad():
        return model(ids).logits[0]


@pytest.mark.parametrize("change", CHANGES)
def test_tensors_are_those_of_transformers(folder: Path, change: Any) -> None:
    rewrite(folder, change)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    source = Source("light", folder)
    state = model.state_dict()
    for name in source.weights.names():
        assert torch.equal(source.weights.read(name), state[name]), name
    num_parameters = sum({p.data_ptr(): p.numel() for p in model.parameters()}.values())
    assert source.anatomy.num_parameters == num_parameters


@pytest.mark.parametrize("change", CHANGES)
def test_streamed_runs_equal_runs_in_memory(folder: Path, tmp_path: Path, change: Any) -> None:
    """8-bit codes of every matrix, from the folder and from the model that transformers loads."""
    rewrite(folder, change)
    recipe = {"bits": 8, "preset": "portable"}
    light = quantize_folder(str(folder), tmp_path / "light", recipe, evaluate=False)
    original = logits(loading.load(folder)[0])
    packed_logits = logits(loading.load(light)[0])
    assert (packed_logits - original).abs().max() < 0.2
    # The folder has the model's own names and says the truth about the head.
    config = json.loads((light / "config.json").read_text())
    assert config["tie_word_embeddings"] == (change is not with_other_head)


def test_a_different_head_is_counted_and_compressed(folder: Path, tmp_path: Path) -> None:
    rewrite(folder, with_other_head)
    source = Source("light", folder)
    assert source.checkpoint.separate == ("lm_head.weight",)
    assert not source.anatomy.is_tied and "lm_head" in source.anatomy.linears
    model, tokenizer = loading.load(folder)
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=8)}), None)
    before = logits(model)
    fw.save(model, tmp_path / "light", tokenizer)
    assert torch.equal(logits(fw.load(tmp_path / "light")[0]), before)


def test_foreign_missing_and_misshaped_tensors_are_refused_before_work(folder: Path) -> None:
    norm = "model.norm.weight"
    for change, words in (
        (lambda t: t | {"model.layers.0.extra.weight": torch.ones(2)}, "layers.0.extra.weight"),
        (lambda t: {name: x for name, x in t.items() if name != norm}, f"lacks .*{norm}"),
        (lambda t: t | {norm: torch.ones(63)}, r"norm.weight is \[63\]"),
        (lambda t: t | {"norm.weight": torch.ones(64)}, "are both the model's"),
    ):
        original = (folder / "model.safetensors").read_bytes()
        rewrite(folder, change)
        with pytest.raises(BadInput, match=words):
            quantize_folder(str(folder), folder.parent / "light", RECIPE, evaluate=False)
        assert not list(folder.parent.glob("light*"))
        (folder / "model.safetensors").write_bytes(original)
