"""`fw shorten` on a small chain of operations: what it writes, refuses, and survives."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from featherweight.base.errors import BadInput, PreflightRefused, UsageError
from featherweight.base.events import Event
from featherweight.data.small_tokenizers import word_tokenizer
from featherweight.data.tasks.op_chain import WORDS
from featherweight.interchange.loading import load
from featherweight.interchange.saving import save_dense
from featherweight.models.scratch import scratch_model
from featherweight.reasoning.loop import STAGE, Recipe
from featherweight.workflows.shorten_folder import shorten_folder
from featherweight.workflows.shorten_plan import ShortenSettings

RECIPE = Recipe(steps=4, prompts=4, group=4, lr=1e-3, max_tokens=24, save_every=1)
SETTINGS = ShortenSettings(
    task="op_chain(count=64,longest=2)",
    recipe=RECIPE,
    floor=3,
    questions=64,
    judge_questions=16,
    points=2,
    warm_start=60,
    warm_lr=1e-2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without knowledge."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = word_tokenizer(WORDS)
    save_dense(scratch_model(len(tokenizer), 32, 2, 4, context=64).eval(), tokenizer, path)
    return path


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "short"
    shorten_folder(folder, out, SETTINGS)
    return out


def test_the_folder_is_a_model_with_its_evidence(done: Path) -> None:
    results = json.loads((done / "results.json").read_text())
    assert len(results["training"]["answers"]) == RECIPE.steps
    assert len(results["training"]["held_out"]) == SETTINGS.points
    for moment in ("before", "after"):
        assert len(results[moment]["correct"]) == SETTINGS.judge_questions
    assert set(results["difficulty"]) == {1, 2}
    model, _ = load(done)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(model.parameters(), scratch_model(39, 32, 2, 4).parameters(), strict=True)
    )
    page = (done / "report.html").read_text()
    assert "Right answers within a budget" in page and "was trained for length" in page
    assert "was trained for length" in (done / "README.md").read_text()


def test_a_finished_run_is_returned(folder: Path, done: Path) -> None:
    before = (done / "results.json").read_bytes()
    shorten_folder(folder, done, SETTINGS)
    assert (done / "results.json").read_bytes() == before


@pytest.mark.parametrize("stop", [("warm_start", 25), (STAGE, 2)])
def test_an_interrupted_run_ends_with_the_same_bits(
    folder: Path, done: Path, tmp_path: Path, stop: tuple[str, int]
) -> None:
    def interrupt(event: Event) -> None:
        if (event.stage, event.done) == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shorten_folder(folder, tmp_path / "out", SETTINGS, listener=interrupt)
    shorten_folder(folder, tmp_path / "out", SETTINGS)
    name = "model.safetensors"
    assert (tmp_path / "out" / name).read_bytes() == (done / name).read_bytes()
    actual, expected = (
        json.loads((path / "results.json").read_text()) for path in (tmp_path / "out", done)
    )
    assert actual["after"] == expected["after"] and actual["best"] == expected["best"]


def test_resuming_with_another_reward_is_refused(folder: Path, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shorten_folder(folder, tmp_path / "out", SETTINGS, listener=interrupt)
    with pytest.raises(UsageError, match="reward"):
        shorten_folder(folder, tmp_path / "out", replace(SETTINGS, reward="kimi"))


def test_a_model_that_knows_nothing_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PreflightRefused):
        shorten_folder(folder, tmp_path / "out", replace(SETTINGS, warm_start=0))


def test_a_collapse_brings_the_best_weights_back(folder: Path, tmp_path: Path) -> None:
    """A rate that destroys the model."""
    settings = replace(
        SETTINGS, recipe=replace(RECIPE, lr=3.0), points=4, patience=1, reward="linear(alpha=1.0)"
    )
    results = shorten_folder(folder, tmp_path / "out", settings)
    assert results["collapsed_at"] is not None and results["best"] == 0
    assert results["after"]["correct"] == results["before"]["correct"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "arc_easy=nowhere.jsonl"}, "does not exist"),
        ({"task": "op_chain(count=64),arithmetic"}, "one task"),
        ({"reward": "kind"}, "kimi"),
        ({"sampler": "cloud"}, "local or native"),
        ({"questions": 0}, "at least 1"),
        ({"recipe": replace(RECIPE, max_tokens=64)}, "more than the model's context"),
        ({"questions": 3}, "a step needs 4 of them"),
    ],
)
def test_refusals(folder: Path, tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises((UsageError, BadInput), match=words):
        shorten_folder(folder, tmp_path / "out", replace(SETTINGS, **changes))  # type: ignore[arg-type]
