"""Small compressed models, and ways to damage what they are saved as."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from featherweight.interchange.packed import folder as packed
from featherweight.quantization.formats import Int
from featherweight.quantization.formats.base import Format
from featherweight.quantization.pipeline import quantize
from featherweight.quantization.plans import Plan
from featherweight.quantization.rounding import Nearest
from featherweight.quantization.transforms import Hadamard


@pytest.fixture(scope="session")
def compress() -> Callable[..., PreTrainedModel]:
    """(model, format, output="none", table=None) -> the model: linears in `format`, embedding and
    head in `table` (None: 8 bits), to nearest."""

    def run(
        model: PreTrainedModel, format: Format, output: str = "none", table: Format | None = None
    ) -> PreTrainedModel:
        names = ["model.embed_tokens"] + ([] if model.config.tie_word_embeddings else ["lm_head"])
        plan = Plan({**dict.fromkeys(names, table or Int(bits=8)), "*": format})
        quantize(model, Nearest(), plan, transform=Hadamard(output=output))
        return model

    return run


@pytest.fixture
def change_config() -> Callable[..., Path]:
    """(folder, edit) -> folder: change config.json."""

    def run(folder: Path, edit: Callable[[dict[str, Any]], object]) -> Path:
        config = json.loads((folder / "config.json").read_text())
        edit(config)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return run


@pytest.fixture
def tamper(change_config: Callable[..., Path]) -> Callable[..., Path]:
    """(folder, edit) -> folder: change tensors; the file's sum is forgotten, as when another
    program saves again.
    """

    def run(folder: Path, edit: Callable[[dict[str, torch.Tensor]], object]) -> Path:
        file = folder / "model.safetensors"
        tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
        edit(tensors)
        save_file(tensors, file, {"format": "pt"})
        return change_config(folder, lambda config: config["quantization_config"].pop("files"))

    return run


@pytest.fixture(scope="session")
def _packed_once(
    tmp_path_factory: pytest.TempPathFactory, compress: Callable[..., PreTrainedModel]
) -> Path:
    model, tokenizer = tiny.llama()
    return packed.save(
        compress(model, Int(bits=4)), tmp_path_factory.mktemp("once") / "small", tokenizer
    )


@pytest.fixture
def small(tmp_path: Path, _packed_once: Path) -> Path:
    """A packed llama of one's own: 4-bit linears, 8-bit tied table."""
    return shutil.copytree(_packed_once, tmp_path / "small")


@pytest.fixture
def ids() -> torch.Tensor:
    """Two sequences of 30 tokens."""
    return torch.arange(60).view(2, 30) * 7 % 300
