"""Families without a record: quantize, save, load and generate on PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import other_families
import pytest
import tiny
import torch

from featherweight.base.errors import Unsupported
from featherweight.inference.native.reader import open_runtime
from featherweight.interchange import loading
from featherweight.interchange.source import Source
from featherweight.workflows.engines import open_engine
from featherweight.workflows.quantize_folder import quantize_folder

EVALUATION = {"text": "wikitext2_test", "length": 32, "windows": 2, "blocks_seconds": 0.0}
CALIBRATION = {"count": 4, "length": 32}
RECIPES = {
    "portable": {
        "bits": 8,
        "preset": "portable",
        "evaluation": EVALUATION,
        "calibration": CALIBRATION,
    },
    "fast": {
        "bits": 4,
        "preset": "fast",
        "evaluation": EVALUATION,
        "calibration": CALIBRATION,
        "gate": None,
    },
}
# The PyTorch engine keeps keys and values, which state-space models do not have.
WITHOUT_KEYS = ("mamba",)


@pytest.mark.parametrize("preset", RECIPES)
@pytest.mark.parametrize("family", other_families.SETTINGS)
def test_from_folder_to_tokens(family: str, preset: str, tmp_path: Path) -> None:
    model = other_families.model(family)
    folder = tiny.save(model, tiny.tokenizer(), tmp_path / "source")
    light = quantize_folder(str(folder), tmp_path / "light", RECIPES[preset])
    results = json.loads((light / "results.json").read_text())
    assert 0 < results["quality"]["kl"]["mean"] < (0.05 if preset == "portable" else 0.5)
    anatomy = Source("source", folder).anatomy
    names = {record["name"] for record in results["layers"]}
    assert set(anatomy.block_linears) <= names <= set(anatomy.matrices)

    ids = torch.arange(3, 23)
    with torch.no_grad():
        expected = loading.load(light)[0](ids[None]).logits[0].numpy()
    if family in WITHOUT_KEYS:
        return
    engine, _ = open_engine(Source("light", light), "reference")
    session = engine.session(64)
    logits = engine.forward(session, ids.numpy(), logits="all")
    assert abs(logits - expected).max() < 1e-3
    with pytest.raises(Unsupported):
        open_runtime(light)
