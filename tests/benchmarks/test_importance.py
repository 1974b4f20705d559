"""The importance matrix for llama.cpp: sums that equal a slow loop's, under llama.cpp's names.

`benchmarks/` is no package; its programs import each other by file name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch

from featherweight.interchange.gguf.file import GGUFFile


@pytest.fixture
def importance(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    import importance

    return importance


def naive_sums(model: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """One sequence at a time, through the model's own forward."""
    sums: dict[str, torch.Tensor] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):

            def add(module: Any, inputs: tuple[torch.Tensor], name: str = name) -> None:
                for x in inputs[0][0].double():
                    sums[name] = sums.get(name, torch.zeros_like(x)) + x * x

            handles.append(module.register_forward_pre_hook(add))
    with torch.no_grad():
        for sequence in tokens:
            model(input_ids=sequence[None], use_cache=False)
    for handle in handles:
        handle.remove()
    return sums


@pytest.mark.parametrize("make", [tiny.llama, tiny.qwen3])
def test_the_file_holds_the_sums_of_squared_inputs(
    importance: Any, tmp_path: Path, make: Any
) -> None:
    model, _ = make()
    tokens = torch.randint(0, model.config.vocab_size, (5, 12))
    path = tmp_path / "imatrix.gguf"
    importance.write_importance(model, tokens, path)
    file = GGUFFile(path)
    assert file.values["general.type"] == "imatrix"
    assert file.values["imatrix.chunk_count"] == 5
    assert file.values["imatrix.chunk_size"] == 12
    expected = naive_sums(model, tokens)
    names = importance.gguf_names(model)
    assert set(file.tensors) == {
        f"{names[name]}.{kind}" for name in expected for kind in ("in_sum2", "counts")
    }
    for name, sums in expected.items():
        assert file.read(f"{names[name]}.counts").tolist() == [[60.0]]
        stored = file.read(f"{names[name]}.in_sum2")
        assert stored.shape == (1, len(sums))
        np.testing.assert_allclose(stored[0], sums.numpy(), rtol=1e-5)


def test_a_tied_head_weighs_the_embedding(importance: Any) -> None:
    tied, untied = (importance.gguf_names(make()[0]) for make in (tiny.llama, tiny.qwen3))
    assert tied["lm_head"] == "token_embd.weight"
    assert untied["lm_head"] == "output.weight"
    assert tied["model.layers.1.mlp.down_proj"] == "blk.1.ffn_down.weight"
