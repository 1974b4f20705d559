"""Where original and light model do not fit into memory together, the original answers first."""

from __future__ import annotations

import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight.base import machine
from featherweight.base.errors import PreflightRefused
from featherweight.interchange import loading
from featherweight.workflows import preflight, quality
from featherweight.workflows.quantize_folder import quantize_folder
from featherweight.workflows.quantize_run import QuantizeRun

RECIPE: dict[str, Any] = {
    "bits": 4,
    "preset": "portable",
    "rounding": "Nearest()",
    "curvature": None,
    "calibration": None,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny.save(*tiny.llama(), tmp_path_factory.mktemp("apart") / "original"))


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = tmp_path_factory.mktemp("apart") / "text.txt"
    text.write_text(tiny.TEXT)
    evaluation = {"text": str(text), "windows": 3, "length": 48, "blocks_seconds": 1, "prompts": 0}
    return {**RECIPE, "evaluation": evaluation}


@pytest.fixture
def limit(folder: str, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> int:
    """Memory that holds one of the models and not both. Tiny models are small beside the process,
    and the estimate of the other stages is set aside.
    """
    monkeypatch.setattr(machine, "peak_memory_bytes", lambda: 10_000_000)
    monkeypatch.setattr(preflight, "_layer_bytes", lambda run: 0)
    run = QuantizeRun.of(folder, recipe)
    together, apart = (preflight.needs(run, in_turns).memory_bytes for in_turns in (False, True))
    assert together - apart == 4 * run.source.anatomy.num_parameters
    return (together + apart) // 2


def results_of(out: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((out / "results.json").read_text())
    return results


def test_the_figures_are_equal_and_the_models_never_meet(
    folder: str,
    recipe: dict[str, Any],
    limit: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(quality, "answer", lambda engine, tokenizer, question: question[::-1])
    together = results_of(quantize_folder(folder, tmp_path / "a", recipe, ask="Who?"))
    models: list[weakref.ref[Any]] = []
    load = loading.load

    def load_alone(*args: Any, **options: Any) -> Any:
        gc.collect()
        assert not [model for model in models if model() is not None]
        model, tokenizer = load(*args, **options)
        models.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr(quality.loading, "load", load_alone)
    out = quantize_folder(folder, tmp_path / "b", recipe, ask="Who?", max_ram_gb=limit / 1e9)
    apart = results_of(out)
    assert len(models) == 2
    for name in ("kl", "top1"):
        for figure in ("mean", "low", "high"):
            expected = together["quality"][name][figure]
            assert apart["quality"][name][figure] == pytest.approx(expected, rel=2e-3)
    assert apart["quality"]["light"] == together["quality"]["light"]
    assert apart["quality"]["original"]["perplexity"]["mean"] == pytest.approx(
        together["quality"]["original"]["perplexity"]["mean"], rel=1e-4
    )
    assert apart["quality"]["kl_self"] == 0.0 and apart["samples"] == together["samples"]
    # What needs both at once is left out, and the results and the page say so.
    assert all(layer.get("kl_block") is None for layer in apart["layers"])
    assert any(layer.get("kl_block") for layer in together["layers"])
    assert quality.APART_WARNING in apart["warnings"]
    assert not together["warnings"]
    for page in ("report.html", "README.md"):
        assert "KL of single blocks was not measured" in (out / page).read_text()
    assert {path.name for path in (tmp_path / "a").iterdir()} == {p.name for p in out.iterdir()}
    for name in ("config.json", "model.safetensors"):
        assert (out / name).read_bytes() == (tmp_path / "a" / name).read_bytes()


def test_what_does_not_fit_alone_is_refused(
    folder: str, recipe: dict[str, Any], limit: int, tmp_path: Path
) -> None:
    with pytest.raises(PreflightRefused, match="stage evidence"):
        quantize_folder(folder, tmp_path / "out", recipe, max_ram_gb=limit / 2e9)
    disk = quality.answers_bytes(QuantizeRun.of(folder, recipe)) / 1e9
    with pytest.raises(PreflightRefused, match="GB of disk"):
        quantize_folder(
            folder, tmp_path / "out", recipe, max_ram_gb=limit / 1e9, max_disk_gb=disk / 2
        )
    assert not list(tmp_path.iterdir())
