"""`fw teach`, and evaluations against its answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny

from featherweight.base.errors import BadInput, UsageError
from featherweight.cli import main
from featherweight.cli.teaching import kind_of
from featherweight.models.answers import Answers, Full, Sampled, TopK
from featherweight.workflows.evaluate_folder import evaluate_folder
from featherweight.workflows.teach_folder import teach_folder

TEXT = "wikitext2_test"
SHORT = ("--length", "32", "--windows", "3")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("teach") / "original")


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(seed=1), tmp_path_factory.mktemp("teach") / "light")


def test_answers_replace_the_original_in_an_evaluation(
    original: Path, light: Path, tmp_path: Path
) -> None:
    live = evaluate_folder(light, against=str(original), windows=2, length=32)["quality"]
    facts = teach_folder(original, TEXT, tmp_path, Full("float32"), windows=2, length=32)
    assert facts["tokens"] == 64 and facts["kind"] == {"kind": "full", "dtype": "float32"}
    assert evaluate_folder(light, against=str(tmp_path))["quality"] == live


def test_the_shell_writes_answers_and_measures_against_them(
    original: Path, light: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "answers")
    with pytest.raises(SystemExit) as stop:
        main(["teach", str(original), TEXT, "--out", out, "--json", *SHORT, "--top-k", "8"])
    assert stop.value.code == 0
    facts = json.loads(capsys.readouterr().out)
    kind = {"kind": "top_k", "k": 8, "dtype": "float16", "draws": 0}
    assert facts["windows"] == 3 and facts["kind"] == kind
    assert Answers.open(out).header.kind == TopK(8)
    with pytest.raises(SystemExit):
        main(["evaluate", str(light), "--against", out, "--json"])
    quality = json.loads(capsys.readouterr().out)["quality"]
    assert quality["text"]["windows"] == 3 and "at most" in quality["kl"]["of"]
    with pytest.raises(SystemExit):
        main(["evaluate", str(light), "--against", out])
    assert "at most the whole KL" in " ".join(capsys.readouterr().out.split())
    (light / "results.json").write_text("{}")
    with pytest.raises(UsageError, match="shows the whole KL"):
        evaluate_folder(light, against=out, record=True)


def test_the_whole_text_is_answered_unless_windows_are_counted(
    original: Path, tmp_path: Path
) -> None:
    text = tmp_path / "text.txt"
    text.write_text("Why is the sky blue? " * 40)
    facts = teach_folder(original, text, tmp_path / "out", length=64)
    assert facts["windows"] > 1 and facts["text"] == "text.txt"
    text.write_text("Why?")
    with pytest.raises(BadInput, match="0 windows of 64"):
        teach_folder(original, text, tmp_path / "other", length=64)


def test_options_that_exclude_each_other() -> None:
    assert kind_of(None, None, False, None) == TopK(64)
    assert kind_of(None, 5, False, None) == Sampled(5)
    assert kind_of(None, None, True, "float32") == Full("float32")
    assert kind_of(8, 5, False, "float32") == TopK(8, "float32", draws=5)
    for top_k, draws in ((8, None), (None, 5)):
        with pytest.raises(UsageError, match="--full keeps everything"):
            kind_of(top_k, draws, True, None)
    with pytest.raises(UsageError, match="--dtype"):
        kind_of(None, 8, False, "float16")
