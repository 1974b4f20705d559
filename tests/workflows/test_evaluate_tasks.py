"""`evaluate --tasks`: rows, figures and page of a folder; it resumes and refuses first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from tests.data.tasks.rows import ROWS, write_rows
from typer.testing import CliRunner

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.events import Event
from featherweight.cli.commands import app
from featherweight.workflows import evaluate_tasks as workflow
from featherweight.workflows.evaluate_tasks import evaluate_tasks
from featherweight.workflows.quantize_folder import quantize_folder
from featherweight.workflows.report_folder import report_folder

TASKS = "arc_easy,lambada,op_chain(count=4, longest=2)"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A folder with two task files."""
    write_rows(tmp_path / "arc_easy.jsonl", 3 * ROWS["ARCEasy"])
    write_rows(tmp_path / "lambada.jsonl", ROWS["LAMBADA"])
    return tmp_path


def rows_of(folder: Path, task: str) -> list[dict[str, Any]]:
    lines = (folder / "items" / f"{task}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_results_rows_and_page(model: Path, files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results, folder = evaluate_tasks(model, TASKS, task_data=files, out=out)
    assert folder == out
    assert results == json.loads((out / "results.json").read_text())
    assert [task["name"] for task in results["tasks"]] == ["arc_easy", "lambada", "op_chain"]
    assert [task["items"] for task in results["tasks"]] == [6, 2, 4]
    assert [len(rows_of(out, task["name"])) for task in results["tasks"]] == [6, 2, 4]
    assert results["tasks"][2]["settings"]["longest"] == 2
    page = (out / "report.html").read_text()
    assert report_folder(out) == [out / "report.html"]
    assert (out / "report.html").read_text() == page
    for words in ("arc_easy", "Accuracy", "Question: What is cold?", "First ids"):
        assert words in page


def test_a_stopped_evaluation_resumes(model: Path, files: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"task_data": files, "runtime": "reference"}
    whole, folder = evaluate_tasks(model, TASKS, out=tmp_path / "whole", **options)
    out = tmp_path / "out"

    def stop(event: Event) -> None:
        if event.stage == "arc_easy" and event.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(model, TASKS, out=out, listener=stop, **options)
    partial = tmp_path / "out.partial" / "items" / "arc_easy.jsonl"
    content = partial.read_text()
    assert content.count("\n") == 4
    partial.write_text(content[:-20])  # a kill in the middle of a line
    with pytest.raises(UsageError, match="other|another recipe"):
        evaluate_tasks(model, "arc_easy", items=2, out=out, **options)
    events: list[Event] = []
    results, _ = evaluate_tasks(model, TASKS, out=out, listener=events.append, **options)
    assert next(event.done for event in events if event.stage == "arc_easy") == 3
    assert results["tasks"] == whole["tasks"]
    assert rows_of(out, "arc_easy") == rows_of(folder, "arc_easy")


def test_a_finished_evaluation_is_shown_again(
    model: Path, files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    results, folder = evaluate_tasks(model, "lambada", task_data=files)
    assert folder.parent == Path("evaluations")
    monkeypatch.setattr(workflow, "open_engine", lambda *args, **options: pytest.fail("ran again"))
    assert evaluate_tasks(model, "lambada", task_data=files) == (results, folder)
    with pytest.raises(UsageError, match="exists already"):
        evaluate_tasks(model, "lambada", task_data=files, items=1, out=folder)


@pytest.mark.parametrize(
    ("tasks", "options", "error", "message"),
    [
        ("arc", {}, UsageError, "no task is called 'arc'"),
        ("arc_challenge", {}, BadInput, "no file for arc_challenge"),
        ("lambada", {"items": 0}, UsageError, "at least 1"),
        ("lambada", {"runtime": "fast"}, UsageError, "runtime 'fast'"),
        ("lambada", {"record": True}, BadInput, "results.json does not exist"),
        ("humaneval=EMPTY", {}, UsageError, "run_code=True"),
        ("arc_easy=EMPTY", {}, BadInput, "holds no examples"),
    ],
)
def test_refusals_come_first(
    tasks: str,
    options: dict[str, Any],
    error: type,
    message: str,
    model: Path,
    files: Path,
    tmp_path: Path,
) -> None:
    empty = write_rows(tmp_path / "empty.jsonl", [])
    with pytest.raises(error, match=message):
        evaluate_tasks(
            model,
            tasks.replace("EMPTY", str(empty)),
            task_data=files,
            out=tmp_path / "out",
            **options,
        )
    assert not (tmp_path / "out").exists()


def test_the_shell_prints_a_table_and_records(model: Path, files: Path, tmp_path: Path) -> None:
    packed = quantize_folder(
        str(model), tmp_path / "packed", {"bits": 8, "preset": "portable"}, evaluate=False
    )
    arguments = ["evaluate", str(packed), "--tasks", "arc_easy,lambada", "--task-data", str(files)]
    arguments += ["--items", "2", "--chat", "--out", str(tmp_path / "out"), "--record"]
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 0, outcome.output
    for words in ("arc_easy", "perplexity", "chat template", "first ids", "report.html"):
        assert words in outcome.stdout
    recorded_results = json.loads((packed / "results.json").read_text())
    assert [task["name"] for task in recorded_results["tasks"]] == ["arc_easy", "lambada"]
    assert "recipe" in recorded_results
    assert "All scores" in (packed / "report.html").read_text()
    outcome = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(outcome.stdout)["folder"] == str(tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "lambada", "--against", "x"], "--against does not go with tasks"),
        (["--tasks", "lambada", "--fail-if", "kl>1"], "--fail-if does not go with tasks"),
        (["--harness", "piqa", "--record"], "--record does not go with --harness"),
        (["--harness", "piqa", "--tasks", "piqa"], "--harness does not go with --tasks"),
        (["--items", "3"], "--items belongs to --tasks"),
        (["--chat"], "--chat belongs to --tasks"),
        (["--task-data", "."], "--task-data belongs to --tasks"),
    ],
)
def test_settings_that_change_nothing_are_refused(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(app, ["evaluate", "model", *arguments])
    assert isinstance(outcome.exception, UsageError)
    assert message in str(outcome.exception)
