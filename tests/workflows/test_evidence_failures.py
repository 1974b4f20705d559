"""Finished weights are never lost to what is measured with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from featherweight.base.errors import EvidenceFailed, UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.cli import main
from featherweight.interchange import loading
from featherweight.workflows import evidence
from featherweight.workflows import quantize_folder as workflow
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.quantize_folder import quantize_folder

SHORT = {"length": 32, "windows": 2, "blocks_seconds": 0.0, "prompts": 0}
RECIPE: dict[str, Any] = {"bits": 4, "preset": "portable", "evaluation": SHORT}


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(tiny.save(*tiny.llama(), tmp_path / "source"))


def test_lengths_are_compared_with_the_context_before_the_work(folder: str, tmp_path: Path) -> None:
    out = tmp_path / "light"
    too_long = {**RECIPE, "evaluation": {**SHORT, "length": 600}}
    with pytest.raises(UsageError, match="600 tokens are longer than the context .* 512 tokens"):
        quantize_folder(folder, out, too_long)
    calibration = {"count": 2, "length": 600}
    with pytest.raises(UsageError, match="calibration.length"):
        quantize_folder(folder, out, {"bits": 2, "preset": "fast", "calibration": calibration})
    with pytest.raises(UsageError, match="--length"):
        evaluate_folder(folder, length=600)
    assert not list(tmp_path.glob("light*"))
    quantize_folder(folder, out, too_long, evaluate=False)


def test_what_cannot_be_measured_is_refused_before_the_work(folder: str, tmp_path: Path) -> None:
    text = tmp_path / "short.txt"
    text.write_text("too little")
    with pytest.raises(ValueError, match="the evaluation text has"):
        quantize_folder(
            folder, tmp_path / "light", {**RECIPE, "evaluation": {**SHORT, "text": str(text)}}
        )
    assert not list(tmp_path.glob("light*"))


def test_an_evaluation_that_fails_leaves_a_finished_folder(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*args: Any) -> Any:
        raise RuntimeError("the text could not be read")

    out = tmp_path / "light"
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "measure", fail)
        with pytest.raises(EvidenceFailed, match="is finished and can be used.*--record"):
            quantize_folder(folder, out, RECIPE)
    assert loading.load(out)
    assert "quality" not in json.loads((out / "results.json").read_text())
    assert (out / "report.html").exists() and not list(tmp_path.glob("*.partial"))

    # The same command says how to go on, and that command does.
    with pytest.raises(UsageError, match="holds the finished weights"):
        quantize_folder(folder, out, RECIPE)
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(out), "--against", folder, "--record", "--length", "32"])
    assert stop.value.code == 0
    results = json.loads((out / "results.json").read_text())
    assert results["quality"]["kl"]["mean"] > 0
    assert "KL" in (out / "report.html").read_text()


def test_evidence_may_change_when_a_run_is_resumed(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was stopped in its evaluation goes on with a shorter one, or none."""

    def interrupt(*args: Any) -> Any:
        raise KeyboardInterrupt

    out = tmp_path / "light"
    with monkeypatch.context() as patch:
        patch.setattr(evidence, "measure", interrupt)
        with pytest.raises(KeyboardInterrupt):
            quantize_folder(folder, out, RECIPE)
    with pytest.raises(UsageError, match="another recipe"):
        quantize_folder(folder, out, {**RECIPE, "bits": 8})

    def refuse(*args: Any) -> Any:
        raise AssertionError("a finished layer was computed again")

    monkeypatch.setattr(workflow, "solve_layer", refuse)
    quantize_folder(folder, out, {**RECIPE, "evaluation": {**SHORT, "windows": 1}})
    assert json.loads((out / "results.json").read_text())["quality"]["text"]["windows"] == 1


def test_other_keys_are_refused_with_their_names(tmp_path: Path) -> None:
    recipe = {"bits": 2, "evaluation": {"length": 8}}
    with RunFolder(tmp_path / "out", recipe, free_keys=("evaluation",)) as run:
        run.change_recipe({**recipe, "evaluation": {"length": 4}})
        with pytest.raises(UsageError, match="bits: 2 became 3"):
            run.change_recipe({**recipe, "bits": 3})
