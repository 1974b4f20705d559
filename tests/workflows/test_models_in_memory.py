"""A model in memory is quantized and saved right, or refused with the true reason."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    LlamaForSequenceClassification,
    LlamaForTokenClassification,
)

import featherweight as fw
from featherweight.base.errors import BadInput, UsageError
from featherweight.interchange import hf  # noqa: F401 - transformers then reads packed folders
from featherweight.interchange.source import Source
from featherweight.workflows.plan_folder import plan_folder
from featherweight.workflows.quantize_folder import quantize_folder

IDS = torch.arange(3, 43)[None]
FAST: dict[str, Any] = {
    "bits": 4,
    "preset": "fast",
    "calibration": {"count": 4, "length": 32},
    "evaluation": {"length": 32, "windows": 2, "blocks_seconds": 0.0, "prompts": 0},
    "gate": None,
}


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits[0].float()


@pytest.mark.parametrize("family", [tiny.llama, tiny.qwen3])
def test_save_pretrained_writes_what_loads(family: Any, tmp_path: Path) -> None:
    model, tokenizer = family()
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4, group=32)}), None)
    model.save_pretrained(tmp_path / "light")
    tokenizer.save_pretrained(tmp_path / "light")
    expected = logits(model)
    assert torch.equal(logits(fw.load(tmp_path / "light")[0]), expected)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "light")), expected)


def test_more_layers_later_are_described_too(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama()
    for pattern in ("*mlp*", "*self_attn*"):
        fw.quantize(model, fw.Nearest(), fw.Plan({pattern: fw.Int(bits=8), "*": None}), None)
    model.save_pretrained(tmp_path / "light")
    tokenizer.save_pretrained(tmp_path / "light")
    config = json.loads((tmp_path / "light" / "config.json").read_text())
    assert len(config["quantization_config"]["layers"]) == 14
    assert torch.equal(logits(fw.load(tmp_path / "light")[0]), logits(model))


def test_blocks_that_are_used_twice_are_refused() -> None:
    model, _ = tiny.llama()
    model.model.layers[1] = model.model.layers[0]
    with pytest.raises(UsageError, match="layers.0.*layers.1.* are one module"):
        fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None)
    model.model.layers[1] = copy.deepcopy(model.model.layers[0])
    model.model.layers[1].self_attn.layer_idx = 1
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("method", [fw.Gram(), fw.FisherA(), fw.FisherB()], ids=repr)
def test_every_dtype_has_every_curvature(dtype: torch.dtype, method: Any, tmp_path: Path) -> None:
    # `model.to` would round the rotary frequencies too, which transformers keeps in float32.
    model, tokenizer = fw.load(tiny.save(*tiny.llama(), tmp_path / "source"), dtype=dtype)
    tokens = torch.randint(3, 300, (4, 32), generator=torch.Generator().manual_seed(0))
    factors = method.collect(model, tokens)
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}
    rounding = fw.LDLQ() if isinstance(method, fw.Gram) else fw.YAQA()
    before = logits(model)
    plan = fw.Plan({"*embed*": fw.Int(bits=8), "*": fw.Trellis(bits=4)})
    fw.quantize(model, rounding, plan, factors, transform=fw.Hadamard())
    assert (logits(model) - before).abs().mean() < 0.3
    fw.save(model, tmp_path / "light", tokenizer)
    assert torch.equal(logits(fw.load(tmp_path / "light", dtype=dtype)[0]), logits(model))


def test_linears_that_no_forward_calls_are_rounded_to_nearest(tmp_path: Path) -> None:
    """OLMo 2 has no such layer, so one is added to the model's class for this test."""
    folder, name = str(tiny.save(*tiny.llama(), tmp_path / "source")), "mlp.gate_proj"
    source = Source("light", Path(folder))
    assert source.anatomy.unreached == frozenset()

    class Silent(nn.Module):
        def __init__(self, mlp: Any) -> None:
            super().__init__()
            self.gate_proj, self.up_proj, self.down_proj = (
                mlp.gate_proj,
                mlp.up_proj,
                mlp.down_proj,
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.down_proj(torch.relu(self.up_proj(x)))

    model, _ = tiny.llama()
    for block in model.model.layers:
        block.mlp = Silent(block.mlp)
    tokens = torch.randint(3, 300, (4, 32), generator=torch.Generator().manual_seed(0))
    factors = fw.Gram().collect(model, tokens)
    plan = fw.Plan({"*embed*": fw.Int(bits=8), "*": fw.Int(bits=4)})
    records = fw.quantize(model, fw.LDLQ(), plan, factors)
    methods = {record["name"]: record["rounding"] for record in records}
    assert {methods[key] for key in methods if key.endswith(name)} == {"Nearest()"}
    assert "LDLQ" in methods["model.layers.0.mlp.up_proj"]


@pytest.mark.parametrize(
    "kind", [AutoModel, LlamaForSequenceClassification, LlamaForTokenClassification]
)
def test_models_without_a_language_head_are_refused_truly(kind: Any, tmp_path: Path) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "source")
    model = kind.from_pretrained(folder)
    message = f"{type(model).__name__} is not a causal language model: .*no language-model head"
    with pytest.raises(UsageError, match=message):
        fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None)
    with pytest.raises(UsageError, match=message):
        fw.Gram().collect(model, torch.arange(3, 35)[None])


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (AutoModel, "lacks tensors of a Qwen3ForCausalLM: lm_head.weight"),
        (
            AutoModelForSequenceClassification,
            "tensors that a Qwen3ForCausalLM does not have: score",
        ),
    ],
    ids=["body", "classifier"],
)
def test_folders_without_a_language_head_are_refused_truly(
    kind: Any, words: str, tmp_path: Path
) -> None:
    model, tokenizer = tiny.qwen3()
    other_model = kind.from_config(model.config)
    folder = tiny.save(other_model, tokenizer, tmp_path / "other")
    with pytest.raises(BadInput, match=words):
        plan_folder(str(folder), FAST)
    with pytest.raises(BadInput, match=words):
        quantize_folder(str(folder), tmp_path / "light", FAST)
    assert not (tmp_path / "light.partial").exists()


def test_a_model_that_is_partly_on_disk_is_refused_truly(tmp_path: Path) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "source")
    places = dict.fromkeys(("model.embed_tokens", "model.layers.0", "lm_head"), "cpu")
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "model.layers.1": "disk"}
    model = AutoModelForCausalLM.from_pretrained(
        folder, device_map=places, offload_folder=tmp_path / "offload"
    )
    assert model.model.layers[1].mlp.up_proj.weight.is_meta
    message = r"model.layers.1.self_attn.q_proj.weight and 8 more .*offloaded to disk"
    for work in (
        lambda: fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None),
        lambda: fw.Gram().collect(model, torch.arange(3, 35)[None]),
    ):
        with pytest.raises(UsageError, match=message):
            work()
    assert isinstance(model.model.layers[0].mlp.up_proj, nn.Linear)


def test_plan_and_run_of_a_folder_agree(tmp_path: Path) -> None:
    folder = str(tiny.save(*tiny.llama(), tmp_path / "source"))
    report = plan_folder(folder, FAST)
    light = quantize_folder(folder, tmp_path / "light", FAST, evaluate=False)
    records = json.loads((light / "results.json").read_text())["layers"]
    assert [line.name for line in report.lines] == [record["name"] for record in records]
    assert not report.warnings
