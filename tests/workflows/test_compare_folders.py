"""`compare`: the figures are those of `evaluate`, ties are named, a killed comparison continues,
and what cannot be compared is refused before any weight is read.
"""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from html_page import Page
from tests.data.tasks.rows import ROWS, write_rows
from transformers import PreTrainedModel
from typer.testing import CliRunner

import featherweight as fw
from featherweight.base import machine
from featherweight.base.errors import BadInput, FeatherweightError, PreflightRefused, UsageError
from featherweight.base.events import Event
from featherweight.cli.commands import app
from featherweight.interchange import loading
from featherweight.models.answers import Full
from featherweight.workflows import evaluate_tasks
from featherweight.workflows.compare_folders import compare_folders
from featherweight.workflows.comparison import SpeedSettings, TaskSettings, TextSettings
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.report_folder import report_folder

LENGTH, COUNT = 32, 4


def noisy(path: Path, *noises: float) -> Path:
    """The tiny model with its weights disturbed once for each of `noises`."""
    model, tokenizer = tiny.llama()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for noise in noises:
            for parameter in model.parameters():
                parameter.mul_(1 + noise * torch.randn(parameter.shape, generator=generator))
    return tiny.save(model, tokenizer, path)


@pytest.fixture(scope="module", autouse=True)
def _few_objects() -> Iterator[None]:
    """Each model that is released costs a collection, which need not look at all that pytest has
    imported.
    """
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """An original, two models that are equally far from it, a bad one, and a packed one."""
    folder = tmp_path_factory.mktemp("models")
    original = tiny.save(*tiny.llama(), folder / "original")
    model, tokenizer = tiny.llama()
    fw.quantize(model, fw.Nearest(), fw.Plan({"*": fw.Int(bits=4, group=32)}))
    packed = fw.save(model, folder / "packed", tokenizer)
    twins = [noisy(folder / "twin", 0.05), noisy(folder / "brother", 0.05, 1e-3)]
    return [original, *twins, noisy(folder / "bad", 0.3), packed]


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> TextSettings:
    """A short text, which is tokenized at once."""
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(fw.data.text("wikitext2_test")[:2000])
    return TextSettings(str(path), COUNT, LENGTH)


@pytest.fixture
def task_settings(tmp_path: Path) -> TaskSettings:
    write_rows(tmp_path / "arc_easy.jsonl", 3 * ROWS["ARCEasy"])
    return TaskSettings("arc_easy", items=5, folder=tmp_path)


def test_figures_are_those_of_evaluate(
    models: list[Path], text: TextSettings, tmp_path: Path
) -> None:
    results, folder = compare_folders(
        [models[0], models[1], models[4]], text=text, out=tmp_path / "out"
    )
    assert results == json.loads((folder / "results.json").read_text())
    entries = {entry["name"]: entry for entry in results["models"]}
    assert list(entries) == ["original", "twin", "packed"]
    assert entries["original"]["quality"]["kl"]["mean"] == 0
    for path in (models[1], models[4]):
        options: dict[str, Any] = {"windows": COUNT, "length": LENGTH, "text": text.name}
        quality = evaluate_folder(path, against=str(models[0]), **options)["quality"]
        assert entries[path.name]["quality"] == quality
    assert entries["packed"]["size"]["file_bytes"] < entries["original"]["size"]["file_bytes"]
    assert entries["packed"]["size"]["bits"] < 12 < entries["original"]["size"]["bits"]
    assert results["answers"]["bytes"] > 0 and not (folder / "work").exists()
    assert sorted(path.name for path in folder.iterdir()) == [
        "events.jsonl",
        "report.html",
        "results.json",
        "run.yaml",
    ]


def test_answers_in_half_precision_are_nearly_the_same(
    models: list[Path], text: TextSettings, tmp_path: Path
) -> None:
    exact, _ = compare_folders(models[:2], text=text, out=tmp_path / "exact")
    half, _ = compare_folders(models[:2], text=text, answers=Full(), out=tmp_path / "half")
    kls = [results["models"][1]["quality"]["kl"]["mean"] for results in (exact, half)]
    assert kls[0] != kls[1] and kls[1] == pytest.approx(kls[0], abs=2e-5)
    assert half["answers"]["bytes"] < 0.6 * exact["answers"]["bytes"]
    assert half["models"][0]["quality"]["kl"]["mean"] == 0


def test_ties_are_called_ties(models: list[Path], text: TextSettings, tmp_path: Path) -> None:
    results, folder = compare_folders(
        [*models[1:4], models[0]], against=models[0], text=text, out=tmp_path / "out"
    )
    assert results["original"] == "original"
    kl = results["measures"][0]
    places = {place["model"]: (place["place"], place["tie"]) for place in kl["places"]}
    assert places == {"twin": (1, True), "brother": (1, True), "bad": (3, False)}
    tie, loser = kl["places"][1]["difference"], kl["places"][2]["difference"]
    assert tie["low"] < 0 < tie["high"] and loser["low"] > 0
    page_text = (folder / "report.html").read_text()
    page = Page(page_text)
    assert "tie 1" in page.text and "a tie. " in page.text
    links = [value for _, name, value in page.attributes if name in ("src", "href")]
    assert all(link.startswith(("#", "data:")) for link in links)
    (folder / "report.html").unlink()
    assert report_folder(folder) == [folder / "report.html"]
    assert (folder / "report.html").read_text() == page_text


def test_a_killed_comparison_continues(
    models: list[Path],
    text: TextSettings,
    task_settings: TaskSettings,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    options: dict[str, Any] = {"text": text, "tasks": task_settings}
    whole, _ = compare_folders(models[:3], out=tmp_path / "whole", **options)
    out = tmp_path / "out"

    def stop(event: Event) -> None:
        if event.stage == "evaluate brother" and event.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_folders(models[:3], out=out, listener=stop, **options)
    with pytest.raises(UsageError, match="another recipe"):
        compare_folders(models[:2], out=out, **options)
    loaded_folders = []
    load = loading.load
    monkeypatch.setattr(
        loading, "load", lambda path, **kw: (loaded_folders.append(path.name), load(path, **kw))[1]
    )

    def stop_in_tasks(event: Event) -> None:
        if event.stage == "arc_easy twin" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare_folders(models[:3], out=out, listener=stop_in_tasks, **options)
    assert loaded_folders == ["brother"]
    assert not (tmp_path / "out.partial" / "work" / "answers").exists()
    results, _ = compare_folders(models[:3], out=out, **options)
    assert loaded_folders == ["brother"]
    assert results["measures"] == whole["measures"]
    for model, entry in zip(results["models"], whole["models"], strict=True):
        for key in ("quality", "kl_tail", "tasks", "size"):
            assert model[key] == entry[key]
    monkeypatch.setattr(evaluate_tasks, "open_engine", lambda *_, **__: pytest.fail("ran again"))
    assert compare_folders(models[:3], out=out, **options)[0] == results


def test_one_model_at_a_time_is_in_memory(
    models: list[Path], text: TextSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, living_models = loading.load, weakref.WeakSet[PreTrainedModel]()
    counts = []

    def counting_load(path: Path, **options: Any) -> Any:
        model, tokenizer = load(path, **options)
        living_models.add(model)
        counts.append(len(living_models))
        return model, tokenizer

    gc.disable()
    try:
        monkeypatch.setattr(loading, "load", counting_load)
        compare_folders(models[:3], text=text, out=tmp_path / "out")
    finally:
        gc.enable()
    assert counts == [1] * 3


def test_speed_is_measured_in_turns(models: list[Path], text: TextSettings, tmp_path: Path) -> None:
    events: list[Event] = []
    results, folder = compare_folders(
        models[:2],
        text=text,
        speed=SpeedSettings(tokens=8, rounds=2),
        runtime="native",
        out=tmp_path / "out",
        listener=events.append,
    )
    turns = [event.message for event in events if event.stage == "speed" and event.message]
    assert turns == ["original", "twin", "twin", "original"]
    for model in results["models"]:
        rates = [entry["decode"] for entry in model["speed"]["rounds"]]
        assert model["speed"]["decode"]["mean"] == pytest.approx(sum(rates) / 2)
    assert results["measures"][-1]["title"] == "tokens a second"
    assert "2 rounds in turns" in Page((folder / "report.html").read_text()).text


def test_models_of_one_name_are_told_apart(
    models: list[Path], text: TextSettings, tmp_path: Path
) -> None:
    """Equal weights in two folders of one name: two models, whose difference is exactly 0."""
    copy = Path(shutil.copytree(models[1], tmp_path / "twin"))
    paths = [models[0], models[1], copy]
    results, _ = compare_folders(paths, text=text, out=tmp_path / "out")
    assert [entry["name"] for entry in results["models"]] == [str(path) for path in paths]
    places = results["measures"][0]["places"]
    assert [(place["place"], place["tie"]) for place in places] == [(1, True), (1, True)]
    assert places[1]["difference"] == {"mean": 0.0, "low": 0.0, "high": 0.0}


def another_vocabulary(path: Path) -> Path:
    model, tokenizer = tiny.llama()
    tokenizer.add_tokens(["<|more|>"])
    return tiny.save(model, tokenizer, path)


def another_cut(path: Path) -> Path:
    return tiny.save(*tiny.qwen2(), path)


def padded(path: Path) -> Path:
    model, tokenizer = tiny.llama()
    model.resize_token_embeddings(320)
    return tiny.save(model, tokenizer, path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (another_vocabulary, "original and other have different vocabularies"),
        (another_cut, "original and other have the same vocabulary but cut text differently"),
        (padded, "original has 300 logits a token and other 320"),
    ],
)
def test_models_of_other_tokens_are_refused(
    make: Any,
    message: str,
    models: list[Path],
    text: TextSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = make(tmp_path / "other")
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    with pytest.raises(UsageError, match=message):
        compare_folders([*models[:2], other], text=text, out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (["original"], {}, UsageError, "at least two"),
        (["original"], {"against": "original"}, UsageError, "at least two"),
        (["original", "twin", "twin"], {}, UsageError, "are the same model"),
        (["original", "missing"], {}, BadInput, "was not found"),
        (["original", "twin"], {"text": {"windows": 1}}, UsageError, "at least 2"),
        (["original", "twin"], {"text": {"windows": 99}}, BadInput, "fewer or shorter"),
        (["original", "twin"], {"text": {"length": 600}}, UsageError, "512 tokens"),
        (["original", "twin"], {"speed": SpeedSettings(600)}, UsageError, "--speed-tokens"),
        (["original", "twin"], {"speed": SpeedSettings(8, 0)}, UsageError, "at least one of each"),
        (["original", "twin"], {"tasks": TaskSettings("arc")}, UsageError, "no task is called"),
        (["original", "twin"], {"runtime": "fast"}, UsageError, "runtime 'fast'"),
        (["original", "twin"], {"answers": Full("int8")}, UsageError, "'int8' is not stored"),
    ],
)
def test_refusals_come_first(
    names: list[str],
    options: dict[str, Any],
    error: type[FeatherweightError],
    message: str,
    models: list[Path],
    text: TextSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    folder = models[0].parent
    if "against" in options:
        options = {"against": folder / options["against"]}
    if "text" in options:
        options = {"text": replace(text, **options["text"])}
    with pytest.raises(error, match=message):
        compare_folders(
            [folder / name for name in names], **{"text": text, **options}, out=tmp_path / "out"
        )
    assert not list(tmp_path.glob("out*"))


def test_a_full_disk_is_refused_first(
    models: list[Path], text: TextSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_disk_bytes", lambda _: 100_000)
    with pytest.raises(PreflightRefused, match="answers-dtype float16"):
        compare_folders(models[:2], text=text, out=tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_the_shell_prints_a_table(
    models: list[Path], text: TextSettings, task_settings: TaskSettings, tmp_path: Path
) -> None:
    arguments = ["compare", *map(str, models[:3]), "--text", text.name]
    arguments += ["--windows", str(COUNT), "--length", str(LENGTH)]
    arguments += ["--tasks", "arc_easy", "--task-data", str(task_settings.folder), "--no-speed"]
    arguments += ["--out", str(tmp_path / "out")]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    for words in ("KL, nats", "(tie 1)", "tie by KL: ", "arc_easy", "report.html"):
        assert words in outcome.stdout
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(outcome.stdout)["folder"] == str(tmp_path / "out")
    page = Page((tmp_path / "out" / "report.html").read_text())
    assert "arc_easy: its prompts" in page.text
    for flags in (["--no-speed", "--speed-rounds", "2"], ["--items", "3"]):
        outcome = CliRunner().invoke(app, ["compare", "a", "b", *flags])
        assert isinstance(outcome.exception, UsageError)
