"""The free-running check of folders: in a run, alone, from the cache, and refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from typer.testing import CliRunner

from featherweight.base.errors import BoundMissed, UsageError
from featherweight.cli import main
from featherweight.cli.commands import app
from featherweight.interchange.source import Source
from featherweight.workflows import free_running as check
from featherweight.workflows.evaluate_free_running import evaluate_free_running
from featherweight.workflows.quantize_folder import quantize_folder

RECIPE: dict[str, Any] = {
    "bits": 4,
    "preset": "portable",
    "rounding": "Nearest()",
    "curvature": None,
    "calibration": None,
}
EVALUATION = {"windows": 2, "length": 32, "blocks_seconds": 0.0, "prompts": 20, "answer_tokens": 48}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    text = tmp_path_factory.mktemp("talk") / "text.txt"
    text.write_text(tiny.TEXT)
    return {**RECIPE, "evaluation": {**EVALUATION, "text": str(text)}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("talk") / "original")


@pytest.fixture(scope="module")
def spoiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original, which now says one token for ever."""
    model, tokenizer = tiny.llama()
    with torch.no_grad():
        model.model.norm.weight.zero_()
        model.model.norm.weight[0] = 1.0
        model.model.embed_tokens.weight[:, 0] = 0.1
        model.model.embed_tokens.weight[77, 0] = 4.0
        for block in model.model.layers:
            block.self_attn.o_proj.weight.zero_()
            block.mlp.down_proj.weight.zero_()
    return tiny.save(model, tokenizer, tmp_path_factory.mktemp("talk") / "spoiled")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEATHERWEIGHT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def flags(entry: dict[str, Any]) -> list[str]:
    return [name for name, rate in entry["rates"].items() if rate["flag"]]


def test_the_original_against_itself_passes(original: Path) -> None:
    entry = evaluate_free_running(original, original, prompts=20, answer_tokens=48)["free_running"]
    assert flags(entry) == [] and entry["num_flags"] == 0
    assert entry["equal_answers"] == 1.0 and entry["samples"] == []
    assert all(rate["difference"]["mean"] == 0 for rate in entry["rates"].values())


def test_a_spoiled_model_is_flagged(original: Path, spoiled: Path) -> None:
    entry = evaluate_free_running(spoiled, original, prompts=20, answer_tokens=48)["free_running"]
    assert "loops" in flags(entry) and entry["rates"]["loops"]["light"] == 1.0
    assert entry["rates"]["loops"]["original"] < 0.5
    assert len(entry["samples"]) == 4


def test_the_second_run_does_not_pay_for_the_original(
    original: Path, spoiled: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = Source.find(original), Source.find(spoiled)
    first = check.free_running(*sources, 3, 8)
    (file,) = (cache / "free_running").iterdir()
    opened = []
    open_weights = check.open_weights
    monkeypatch.setattr(check, "open_weights", lambda s: opened.append(s) or open_weights(s))
    second = check.free_running(*sources, 3, 8)
    assert opened == [sources[1]] and second["original_cached"] and not first["original_cached"]
    for entry in (first, second):
        del entry["seconds"], entry["original_cached"]
    assert first == second
    # Other prompts, other lengths and damaged files are answered anew.
    assert not check.free_running(*sources, 4, 8)["original_cached"]
    assert not check.free_running(*sources, 3, 9)["original_cached"]
    file.write_text(file.read_text()[:-9])
    assert not check.free_running(*sources, 3, 8)["original_cached"]
    assert check.free_running(*sources, 3, 8)["original_cached"]


def test_a_cache_that_cannot_be_written_costs_nothing_else(
    original: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache.write_text("a file where the folder should be")
    assert evaluate_free_running(original, original, prompts=2, answer_tokens=4)["free_running"]
    assert "not kept for the next run" in caplog.text


def test_a_run_shows_the_check(original: Path, recipe: dict[str, Any], tmp_path: Path) -> None:
    light = quantize_folder(str(original), tmp_path / "light", recipe)
    results = json.loads((light / "results.json").read_text())
    entry = results["free_running"]
    assert entry["prompts"] == 20 and entry["max_tokens"] == 48
    assert set(results["seconds"]) >= {"evaluate", "free running"}
    assert "Free answers" in (light / "report.html").read_text()
    again = evaluate_free_running(light, original, prompts=20, answer_tokens=48)["free_running"]
    for key in ("rates", "samples", "equal_answers", "mean_tokens"):
        assert again[key] == entry[key]


def test_without_evaluation_nothing_is_asked(original: Path, tmp_path: Path) -> None:
    light = quantize_folder(str(original), tmp_path / "light", RECIPE, evaluate=False)
    assert "free_running" not in json.loads((light / "results.json").read_text())
    assert "Free answers" not in (light / "report.html").read_text()


def test_the_shell_records_and_bounds(
    original: Path, spoiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (spoiled / "results.json").write_text('{"model": {"name": "Tiny"}}')
    options = ["--free-running", "--against", str(original), "--prompts", "20"]
    options += ["--answer-tokens", "40"]
    command = ["evaluate", str(spoiled), *options]
    outcome = CliRunner().invoke(app, [*command, "--record"])
    assert outcome.exit_code == 0, outcome.output
    for words in ("repetition loops", "flagged", "warning: In free answers it repeats itself"):
        assert words in outcome.stdout
    page, card = ((spoiled / name).read_text() for name in ("report.html", "README.md"))
    for text in (page, card):
        assert "Warning: in free answers it repeats itself in a loop on 100" in text
    outcome = CliRunner().invoke(app, [*command, "--fail-if", "flags>0"])
    assert isinstance(outcome.exception, BoundMissed)
    outcome = CliRunner().invoke(app, [*command, "--fail-if", "empty>0.5", "--json"])
    assert outcome.exit_code == 0 and json.loads(outcome.stdout)["free_running"]["prompts"] == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--free-running"], "needs --against"),
        (["--free-running", "--against", "ORIGINAL", "--prompts", "101"], "there are 100"),
        (["--free-running", "--against", "ORIGINAL", "--text", "a.txt"], "--text does not go"),
        (["--free-running", "--against", "ORIGINAL", "--tasks", "copa"], "--tasks does not go"),
        (["--prompts", "5"], "--prompts belongs to --free-running"),
        (["--free-running", "--against", "OTHER", "--prompts", "2"], "different tokenizers"),
    ],
)
def test_what_cannot_work_is_refused(
    arguments: list[str],
    message: str,
    original: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, tokenizer = tiny.llama()
    tokenizer.chat_template = None
    other = tiny.save(model, tokenizer, tmp_path / "other")
    names = {"ORIGINAL": str(original), "OTHER": str(other)}
    with pytest.raises(SystemExit) as stop:
        main(["evaluate", str(original), *(names.get(a, a) for a in arguments)])
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_settings_of_a_run_are_checked_before_the_work(original: Path, tmp_path: Path) -> None:
    for changes, words in (
        ({"prompts": 101}, "there are 100"),
        ({"answer_tokens": 0}, "at least 1"),
    ):
        recipe = {**RECIPE, "evaluation": {**EVALUATION, **changes}}
        with pytest.raises(UsageError, match=words):
            quantize_folder(str(original), tmp_path / "light", recipe)
    assert not list(tmp_path.glob("light*"))


def test_a_base_model_continues_texts_and_its_form_is_not_checked(tmp_path: Path) -> None:
    model, tokenizer = tiny.llama()
    tokenizer.chat_template = None
    base = tiny.save(model, tokenizer, tmp_path / "base")
    options = ["--against", str(base), "--prompts", "2", "--answer-tokens", "4"]
    outcome = CliRunner().invoke(app, ["evaluate", str(base), "--free-running", *options])
    assert outcome.exit_code == 0 and "the form was not checked" in outcome.stdout
    assert "form breaks" not in outcome.stdout
