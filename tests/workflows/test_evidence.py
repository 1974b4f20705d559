"""The original's size is what a user had before: published, not converted for our use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tiny_gguf
import torch

from featherweight.interchange import bundled
from featherweight.interchange.source import Source
from featherweight.workflows.evidence import model_facts


@pytest.fixture(scope="module")
def model() -> Any:
    return tiny.llama()


def saved(model: Any, folder: Path, stored: torch.dtype, **config: Any) -> Path:
    """The tiny model with tensors of dtype `stored` and a changed config.json (None removes)."""
    network, tokenizer = model
    tiny.save(network.to(stored), tokenizer, folder)
    network.to(torch.float32)
    path = folder / "config.json"
    content = {**json.loads(path.read_text()), **config}
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
def test_the_config_names_the_published_dtype(model: Any, tmp_path: Path, key: str) -> None:
    config = {"dtype": None, "torch_dtype": None, key: "bfloat16"}
    facts = model_facts(Source.find(saved(model, tmp_path / "model", torch.float32, **config)))
    assert facts["published_dtype"] == "bfloat16"
    assert facts["published_bytes"] == 2 * facts["num_parameters"]
    assert facts["published_bits"] == 16.0
    assert facts["source_file_bytes"] > 4 * facts["num_parameters"]


def test_without_a_dtype_the_tensors_say_it(model: Any, tmp_path: Path) -> None:
    folder = saved(model, tmp_path / "model", torch.bfloat16, dtype=None)
    facts = model_facts(Source.find(folder))
    assert facts["published_dtype"] == "bfloat16"
    assert facts["published_bytes"] == facts["source_file_bytes"]
    assert facts["published_bits"] == facts["source_bits"]


def test_files_in_the_published_dtype_count_as_they_are(model: Any, tmp_path: Path) -> None:
    folder = saved(model, tmp_path / "model", torch.bfloat16, dtype="bfloat16")
    facts = model_facts(Source.find(folder))
    assert facts["published_bytes"] == facts["source_file_bytes"]


def test_a_gguf_file_was_published_as_it_is(
    model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    tiny_gguf.write(path, *model)
    facts = model_facts(Source.find(path))
    assert facts["published_dtype"] == "GGUF"
    assert facts["published_bytes"] == path.stat().st_size


def test_a_bundled_model_has_the_dtype_of_its_record(model: Any, tmp_path: Path) -> None:
    """Its folder is a conversion to float32, and config.json says so."""
    folder = saved(model, tmp_path / "model", torch.float32, dtype="float32")
    facts = model_facts(Source(bundled.SMOLLM2.name, folder))
    assert facts["published_dtype"] == "bfloat16"
    assert facts["published_bytes"] == 2 * facts["num_parameters"]
    assert model_facts(Source(str(folder), folder))["published_dtype"] == "float32"
