"""Families without a record: quantize, save, load and generate on PyTorch."""

from __future__ import annotations

import json
from pathlib import Path

import other_families
import pytest
import tiny
import torch

from featherweight.base.errors import Unsupported
from featherweight.base.sampling import Sampling
from featherweight.inference import generate
from featherweight.inference.batching.batcher import Batcher
from featherweight.inference.native.reader import open_runtime
from featherweight.interchange import loading
from featherweight.interchange.source import Source
from featherweight.workflows.engines import open_engine
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.generate_text import generate_text
from featherweight.workflows.quantize_folder import quantize_folder

EVALUATION = {"length": 32, "windows": 2, "blocks_seconds": 0.0, "prompts": 2, "answer_tokens": 4}
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


@pytest.mark.parametrize(
    ("family", "preset"),
    [
        *((family, "portable") for family in other_families.SETTINGS),
        *((family, "fast") for family in ("falcon", "gpt_bigcode", "mamba")),
    ],
)
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
    engine, _ = open_engine(Source("light", light), "reference")
    session = engine.session(64)
    logits = engine.forward(session, ids.numpy(), logits="all")
    assert abs(logits - expected).max() < 1e-3
    with pytest.raises(Unsupported):
        open_runtime(light)


def test_a_quantized_mamba_answers_alone_and_in_a_batch(tmp_path: Path) -> None:
    """`fw generate`, the batcher of `fw serve`, and `fw evaluate` on the engine."""
    folder = tiny.save(other_families.model("mamba"), tiny.tokenizer(), tmp_path / "source")
    light = quantize_folder(str(folder), tmp_path / "light", RECIPES["portable"], evaluate=False)
    for lookup in (0, 4):
        with generate_text(light, "Who?", Sampling(8, 0.0), lookup=lookup) as generation:
            assert generation.usage.completion_tokens == 0 and list(generation)
    engine, tokenizer = open_engine(Source("light", light))
    tokenizer.end_ids = frozenset()
    sampling = Sampling(max_tokens=10, temperature=0)
    prompts = [list(range(3, 3 + length)) for length in (5, 20, 33)]
    alone = [
        [id for delta in generate(engine, tokenizer, prompt, sampling) for id in delta.tokens]
        for prompt in prompts
    ]
    with Batcher(engine, tokenizer, num_slots=2, capacity=64, chunk=8) as batcher:
        for _ in range(2):
            requests = [batcher.submit(prompt, sampling) for prompt in prompts]
            assert [[id for delta in r for id in delta.tokens] for r in requests] == alone
    engine.close()
    options = {"windows": 2, "length": 32}
    by_engine = evaluate_folder(light, runtime="reference", **options)["quality"]
    plain = evaluate_folder(light, against=str(folder), **options)["quality"]
    assert by_engine["light"]["perplexity"]["mean"] == pytest.approx(
        plain["light"]["perplexity"]["mean"], rel=1e-5
    )
    assert 0 < plain["kl"]["mean"] < 0.05
