"""GGUF exports in llama.cpp: the logits of the packed model, up to llama.cpp's own rounding.

Skipped without the package xllamacpp (tests/llama_server.py).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest
import tiny
import torch
from llama_server import LlamaServer
from transformers import AutoTokenizer

from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats import Int, Ternary
from featherweight.quantization.formats.base import Format
from featherweight.quantization.layers import keep_decoded
from featherweight.workflows.export_folder import export_folder

TEXT = "In 1905 the fox:  12 <|im_end|>\n 2024"
GEMMA_TEXT = "  the fox\n\n\tfo\t\t a   b é🙂<start_of_turn>x"
Q4_0, Q2_0 = {"*": Int(bits=4, group=32)}, {"*": Int(bits=2, group=64)}


@torch.no_grad()
@pytest.mark.parametrize(
    ("make", "plan", "kind"),
    [
        (tiny.llama, Q4_0, "Q4_0"),
        (tiny.llama, {"*": Int(bits=4, group=32, symmetric=False, portable=True)}, "Q4_1"),
        (tiny.llama, Q2_0, "Q2_0"),
        (exporting.qwen2, {"*": Int(bits=8)}, "Q8_0"),
        (exporting.qwen3, {"*": Int(bits=3, group=32)}, "Q4_0"),
        (exporting.llama3(16), Q4_0, "Q4_0"),
        (exporting.LINEAR, Q4_0, "Q4_0"),
        (exporting.mistral, Q4_0, "Q4_0"),
        (tiny.granite, Q4_0, "Q4_0"),
        (exporting.olmo2, Q4_0, "Q4_0"),
        (exporting.phi3, Q4_0, "Q4_0"),
        (exporting.long_phi3, {"*": Int(bits=8)}, "Q8_0"),
        (exporting.gemma2, Q4_0, "Q4_0"),
        (exporting.spoken_gemma2, {"*": Int(bits=8)}, "Q8_0"),
        (exporting.gemma3, Q4_0, "Q4_0"),
        (exporting.deep_gemma3, {"*": Int(bits=8)}, "Q8_0"),
        (exporting.wide_llama, {"*": Ternary()}, "TQ2_0"),
        (exporting.wide_llama, {"*": Ternary(group=64)}, "Q2_0"),
        (exporting.wide_llama, {"*": Int(bits=2, group=256)}, "TQ2_0"),
        (exporting.wide_llama, {"*": Int(bits=2, group=128)}, "Q2_0"),
    ],
    ids=lambda value: (
        getattr(value, "__name__", None) or (repr(value["*"]) if isinstance(value, dict) else value)
    ),
)
def test_llama_cpp_computes_the_same(
    tmp_path: Path, make: Callable[[], Any], plan: dict[str, Format], kind: str, ids: torch.Tensor
) -> None:
    pytest.importorskip("xllamacpp")
    folder = exporting.pack(tmp_path / "packed", make, plan, tables=Int(bits=8))
    made = export_folder(folder, "gguf", tmp_path / "m.gguf")
    assert kind in made.types
    llama, tokenizer = LlamaServer(made.path), AutoTokenizer.from_pretrained(folder)
    text = TEXT if "im_end" in str(tokenizer.all_special_tokens) else GEMMA_TEXT
    assert llama.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids
    with keep_decoded(model := packed.load(folder)):
        ours = model(ids).logits.double().log_softmax(-1)
    rows = [llama.log_probabilities(row, ours.shape[-1]) for row in ids.tolist()]
    theirs = torch.from_numpy(np.stack(rows))
    kl = (ours.exp() * (ours - theirs)).sum(-1).mean()
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    print(f"KL of llama.cpp from the packed model: {kl:.2e}, agreement {agreement:.3f}")
    # It rounds activations to 8 bits in blocks of 32 (and keys and values to fp16), which is all
    # that may differ.
    assert kl < 1e-3
    assert agreement > 0.9
