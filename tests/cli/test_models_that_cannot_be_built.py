"""Configurations that a library refuses, and mixtures of experts.

`fw plan` and `fw quantize` say the whole reason before any work, with exit code 2, and nobody is
asked to report it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import other_families
import pytest
import tiny
import torch

import featherweight as fw
from featherweight.base.errors import UsageError
from featherweight.cli import main
from featherweight.interchange import loading

SMALL = ("--preset", "portable", "--set", "evaluation.length=32", "--set", "evaluation.windows=1")
DYNAMIC = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model") / "llama")


def changed(folder: Path, out: Path, settings: dict[str, Any]) -> Path:
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, **settings}))
    return out


def exit_code(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    return int(stop.value.code or 0)


def check_refused(model: Path, tmp_path: Path, capsys: Any, words: tuple[str, ...]) -> None:
    out = tmp_path / "out"
    for command in (("plan", model), ("quantize", model, "--out", out)):
        assert exit_code(*command, *SMALL) == 2
        message = " ".join(capsys.readouterr().err.split())
        assert "report it" not in message and "unexpected" not in message
        for word in words:
            assert word in message
    assert not out.exists() and not out.with_name("out.partial").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pad_token_id": 100_000}, ("Padding_idx must be within num_embeddings",)),
        ({"max_position_embeddings": 256.0}, ("max_position_embeddings", "expected int", "256.0")),
        ({"rope_parameters": {**DYNAMIC, "rope_type": "spiral"}}, ("rope_type is 'spiral'",)),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, ("type is 'spiral'",)),
        ({"hidden_act": "no-such"}, ("hidden_act is 'no-such'",)),
        ({"dtype": "float7"}, ("float7",)),
        ({"num_attention_heads": 3}, ("not a multiple of the number of attention heads",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_configuration_that_a_library_refuses(
    settings: dict[str, Any], words: tuple[str, ...], folder: Path, tmp_path: Path, capsys: Any
) -> None:
    check_refused(changed(folder, tmp_path / "model", settings), tmp_path, capsys, words)


@pytest.mark.parametrize(
    "settings",
    [
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "flash_attention_3", "attn_implementation": "no-such"},
        {"rope_parameters": DYNAMIC},
    ],
    ids=["flash", "unknown", "dynamic rope"],
)
def test_what_must_simply_work(settings: dict[str, Any], folder: Path, tmp_path: Path) -> None:
    """Attention that is not installed here, and frequencies that depend on the length: quantized at
    8 bits, loaded again, the logits are close to those of the original, beyond its context too.
    """
    model, light = changed(folder, tmp_path / "model", settings), tmp_path / "light"
    assert exit_code("plan", model, *SMALL) == 0
    recipe = ("--bits", 8, *SMALL, "--set", "evaluation.blocks_seconds=0")
    recipe += ("--set", "evaluation.prompts=0")
    assert exit_code("quantize", model, "--out", light, *recipe) == 0
    assert json.loads((light / "results.json").read_text())["quality"]["kl"]["mean"] < 0.01
    ids = torch.randint(3, 300, (1, 600), generator=torch.Generator().manual_seed(0))
    original, quantized = loading.load(model)[0], loading.load(light)[0]
    with torch.no_grad():
        expected, logits = original(ids).logits, quantized(ids).logits
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max()
    in_memory, tokenizer = fw.load(model)
    fw.quantize(in_memory, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None)
    fw.save(in_memory, tmp_path / "saved", tokenizer)
    with torch.no_grad():
        assert torch.equal(fw.load(tmp_path / "saved")[0](ids).logits, in_memory(ids).logits)


MIXTURE = {**other_families.GROUPED, "num_local_experts": 4}


@pytest.mark.parametrize("in_original_format", [True, False])
def test_a_mixture_of_experts(in_original_format: bool, tmp_path: Path, capsys: Any) -> None:
    model, folder = other_families.build("mixtral", MIXTURE), tmp_path / "mixtral"
    model.save_pretrained(folder, save_original_format=in_original_format)
    tiny.tokenizer().save_pretrained(folder)
    words = ("mixtral is a mixture of experts", "model.layers.0.mlp.experts", "not supported yet")
    check_refused(folder, tmp_path, capsys, words)
    with pytest.raises(UsageError, match="mixtral is a mixture of experts"):
        fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4)}), None)


def test_a_mixture_whose_original_is_quantized(tmp_path: Path, capsys: Any) -> None:
    """GPT-OSS is published in mxfp4: this is not why it cannot be used."""
    settings = {**MIXTURE, "head_dim": 16, "num_experts_per_tok": 2}
    folder = tiny.save(
        other_families.build("gpt_oss", settings), tiny.tokenizer(), tmp_path / "gpt-oss"
    )
    published = changed(
        folder, tmp_path / "model", {"quantization_config": {"quant_method": "mxfp4"}}
    )
    words = ("gpt_oss is a mixture of experts", "model.layers.0.mlp.experts")
    check_refused(published, tmp_path, capsys, words)
