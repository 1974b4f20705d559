"""transformers runs packed folders once the plug-in is imported, and stops, rather than guess, when
it is not.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel
from transformers.quantizers import register_quantizer
from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

from featherweight.base.errors import BadInput
from featherweight.interchange import hf
from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats import Int
from featherweight.quantization.layers import CompressedLinear, TiedHead, compressed_layers

Run = Callable[..., Any]
Tensors = dict[str, torch.Tensor]
Q = "model.layers.1.self_attn.q_proj"


@torch.no_grad()
def logits(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    return model(ids).logits


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_from_pretrained_runs_the_packed_weights(small: Path, ids: torch.Tensor) -> None:
    model = AutoModelForCausalLM.from_pretrained(small)
    assert isinstance(model.get_submodule(Q), CompressedLinear)
    assert isinstance(model.lm_head, TiedHead)
    assert torch.equal(logits(model, ids), logits(packed.load(small), ids))
    assert model.generate(ids[:1, :4], max_new_tokens=3, do_sample=False).shape[1] <= 7
    assert model.is_quantized


def test_layers_that_read_one_tensor_share_its_rotation(small: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small)
    memos = {
        id(layer.memo)
        for layer in compressed_layers(model).values()
        if isinstance(layer, CompressedLinear)
    }
    assert len(memos) == 1


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("shard", ["5GB", "30KB"])
def test_save_pretrained_round_trips(
    small: Path, tmp_path: Path, ids: torch.Tensor, dtype: Any, shard: str
) -> None:
    model = AutoModelForCausalLM.from_pretrained(small, dtype=dtype or "auto")
    model.save_pretrained(tmp_path / "again", max_shard_size=shard)
    assert len(list((tmp_path / "again").glob("*.safetensors"))) == 1 or shard == "30KB"
    again = packed.load(tmp_path / "again")
    assert again.dtype == (dtype or torch.float32)
    assert torch.equal(logits(again, ids), logits(model, ids))
    # The sums of the first file say nothing about the second.
    assert "files" not in AutoConfig.from_pretrained(tmp_path / "again").quantization_config


def test_an_untied_model_round_trips(tmp_path: Path, compress: Run, ids: torch.Tensor) -> None:
    model = compress(tiny.odd()[0], Int(bits=4))
    folder = packed.save(model, tmp_path / "odd")
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    loaded.save_pretrained(tmp_path / "again")
    assert torch.equal(
        logits(AutoModelForCausalLM.from_pretrained(tmp_path / "again"), ids), logits(model, ids)
    )


def test_tying_again_does_not_bring_back_a_dense_head(small: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(small)
    model.tie_weights()
    assert isinstance(model.lm_head, TiedHead)
    assert model.lm_head.embedding is model.model.embed_tokens


DAMAGE: list[tuple[Callable[[Tensors], object], str]] = [
    (lambda t: t.pop(f"{Q}.codes"), f"{Q}.codes is missing"),
    (lambda t: t.pop("model.norm.weight"), "model.norm.weight is missing"),
    (
        lambda t: t.update({"model.nomr.weight": t.pop("model.norm.weight")}),
        "model.norm.weight is missing",
    ),
    (lambda t: t.update({f"{Q}.zero": torch.ones(4)}), f"{Q}.zero is not stored"),
    (lambda t: t.update({"model.extra": torch.ones(4)}), "model.extra is not one of this model's"),
    (lambda t: t[f"{Q}.scale"].view(-1)[5].fill_(float("inf")), f"{Q}.scale holds 1 non-finite"),
]


@pytest.mark.parametrize(("edit", "message"), DAMAGE)
def test_the_plug_in_alone_refuses_too(
    edit: Callable[[Tensors], object], message: str, small: Path, tamper: Run
) -> None:
    tamper(small, edit)
    with pytest.raises(BadInput, match=message):
        AutoModelForCausalLM.from_pretrained(small)


def test_the_plug_in_alone_finds_a_flipped_bit(small: Path) -> None:
    data = bytearray((small / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (small / "model.safetensors").write_bytes(data)
    with pytest.raises(BadInput, match="was altered"):
        AutoModelForCausalLM.from_pretrained(small)


def test_a_dense_model_is_not_quantized_on_the_way(small: Path, tmp_path: Path) -> None:
    folder = tiny.save(*tiny.llama(), tmp_path / "dense")
    config = AutoConfig.from_pretrained(small).quantization_config
    with pytest.raises(ValueError, match="pre-quantized"):
        AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=hf.FeatherweightConfig(**config)
        )


def test_registering_twice_is_harmless() -> None:
    hf.register()
    assert AUTO_QUANTIZER_MAPPING["featherweight"] is hf.FeatherweightQuantizer
    with pytest.raises(ValueError, match="already registered"):
        register_quantizer("featherweight")(hf.FeatherweightQuantizer)


def test_only_the_plug_in_registers() -> None:
    shown = python(
        "import featherweight, featherweight.interchange, featherweight.interchange.packed.folder\n"
        "from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as known\n"
        "print('featherweight' in known)\n"
        "import featherweight.interchange.hf\n"
        "print('featherweight' in known)"
    )
    assert shown.stdout.split() == ["False", "True"], shown.stderr


def test_without_the_import_transformers_stops(small: Path) -> None:
    """What the model card promises: no import, no model (other packed formats give one with random
    weights).
    """
    shown = python(
        f"from transformers import AutoModelForCausalLM as A; A.from_pretrained({str(small)!r}); "
        "print('loaded')"
    )
    assert shown.returncode != 0
    assert "loaded" not in shown.stdout
    assert "Unknown quantization type, got featherweight" in shown.stderr
    assert "MISMATCH" in shown.stderr
    assert "ignore_mismatched_sizes" in shown.stderr
