"""Every family, quantized in memory, saved and loaded, gives the logits that it gave before saving,
bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

import featherweight as fw


@pytest.mark.parametrize(
    "make",
    [
        *(tiny.llama, tiny.qwen3, tiny.gemma3, tiny.odd, tiny.mistral),
        *(tiny.granite, tiny.olmo2, tiny.phi3),
    ],
)
@pytest.mark.parametrize("transform", [None, fw.Hadamard(), fw.Hadamard(output="full")])
def test_the_same_logits_after_loading(
    make: Callable[[], tuple[Any, Any]], transform: fw.Hadamard | None, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    import featherweight.interchange.hf  # noqa: F401 (registers the format)

    model, tokenizer = make()
    tokens = torch.randint(3, 300, (8, 24), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        original = model(tokens).logits
    factors = fw.FisherA().collect(model, tokens)
    plan = fw.Plan({"*embed*": fw.Int(bits=8), "lm_head": fw.Int(bits=8), "*": fw.Trellis(bits=2)})
    fw.quantize(model, fw.YAQA(), plan, factors, transform=transform)
    with torch.no_grad():
        reference = model(tokens).logits
    assert not torch.equal(reference, original)
    fw.save(model, tmp_path / "light", tokenizer)
    light, _ = fw.load(tmp_path / "light")
    transformers_model = AutoModelForCausalLM.from_pretrained(
        tmp_path / "light", dtype=torch.float32
    ).eval()
    with torch.no_grad():
        assert torch.equal(light(tokens).logits, reference)
        assert torch.equal(transformers_model(tokens).logits, reference)
