"""`evaluate_folder` measures the windows that it says, with and without a BOS."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from tokenizers.processors import TemplateProcessing

from featherweight.base.errors import UsageError
from featherweight.data import text
from featherweight.interchange import loading
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.quantize_folder import quantize_folder

LENGTH, COUNT = 32, 3
PORTABLE: dict[str, Any] = {
    "bits": 8,
    "preset": "portable",
    "evaluation": {"windows": COUNT, "length": LENGTH, "blocks_seconds": 0.0, "prompts": 0},
}


def folder_of(path: Path, adds_bos: bool) -> Path:
    model, tokenizer = tiny.llama()
    if adds_bos:
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="<|im_start|> $A", pair=None, special_tokens=[("<|im_start|>", 1)]
        )
    return tiny.save(model, tokenizer, path)


def perplexity_of_the_judge(folder: Path, bos: int | None) -> float:
    """Window by window: tokens i * L ... (i + 1) * L of the text, the first replaced by `bos`."""
    model, tokenizer = loading.load(folder)
    ids = tokenizer(
        text("wikitext2_test")[:4000], return_tensors="pt", add_special_tokens=False
    ).input_ids[0]
    loss = 0.0
    for i in range(COUNT):
        window = ids[i * LENGTH : (i + 1) * LENGTH + 1].clone()
        if bos is not None:
            window[0] = bos
        with torch.no_grad():
            log_p = model(window[None, :-1]).logits[0].log_softmax(-1)
        loss -= log_p.gather(1, window[1:, None]).sum().item()
    return math.exp(loss / (COUNT * LENGTH))


@pytest.mark.parametrize(
    ("adds_bos", "bos", "first"),
    [(False, "auto", None), (True, "auto", 1), (True, "no", None), (False, "yes", 1)],
)
def test_perplexity_is_that_of_the_judge(
    adds_bos: bool, bos: str, first: int | None, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "model", adds_bos)
    quality = evaluate_folder(folder, windows=COUNT, length=LENGTH, bos=bos)["quality"]
    assert quality["light"]["perplexity"]["mean"] == pytest.approx(
        perplexity_of_the_judge(folder, first), rel=1e-5
    )
    assert quality["text"]["bos"] is (first is not None)
    by_engine = evaluate_folder(
        folder, windows=COUNT, length=LENGTH, bos=bos, runtime="reference", against=str(folder)
    )["quality"]
    assert by_engine["text"] == quality["text"] and by_engine["kl"]["mean"] < 1e-6


def test_a_bos_that_does_not_exist_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = tiny.llama()
    tokenizer.bos_token = None
    folder = tiny.save(model, tokenizer, tmp_path / "model")
    for name in ("load", "_load_model"):
        monkeypatch.setattr(loading, name, lambda *_, **__: pytest.fail("the model was loaded"))
    with pytest.raises(UsageError, match="no BOS token"):
        evaluate_folder(folder, windows=COUNT, length=LENGTH, bos="yes")
    recipe = {**PORTABLE, "evaluation": {**PORTABLE["evaluation"], "bos": True}}
    with pytest.raises(UsageError, match="no BOS token"):
        quantize_folder(str(folder), tmp_path / "light", recipe)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_run_records_the_choice_and_its_page_shows_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", adds_bos=True)
    light = quantize_folder(str(folder), tmp_path / "light", PORTABLE)
    results = json.loads((light / "results.json").read_text())
    assert results["quality"]["text"]["bos"] is True
    assert results["quality"]["text"]["first_ids"][0] == 1
    assert results["quality"]["kl_self"] == 0.0
    assert results["recipe"]["evaluation"]["bos"] == "auto"
    page = (light / "report.html").read_text()
    assert "BOS added" in page and ">yes<" in page[page.index("BOS added") :][:200]
    evaluate_folder(light, against=str(folder), windows=COUNT, length=LENGTH, bos="no", record=True)
    again = json.loads((light / "results.json").read_text())
    assert again["quality"]["text"]["bos"] is False
    assert again["quality"]["kl"] != results["quality"]["kl"]
