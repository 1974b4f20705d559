"""`evaluate --harness`: lm-evaluation-harness on our engines; without it, a clear message."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
from tests.data.tasks.rows import ROWS, write_rows

from featherweight.base.errors import BadInput, Unsupported, UsageError
from featherweight.workflows.evaluate_harness import evaluate_harness
from featherweight.workflows.evaluate_tasks import evaluate_tasks

CHOICES = """
task: small_choices
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/arc_easy.jsonl}}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{query}}}}\\nAnswer:"
doc_to_target: "{{{{gold}}}}"
doc_to_choice: "{{{{choices}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""
ANSWERS = """
task: small_answers
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/gsm8k.jsonl}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer}}}}"
generation_kwargs: {{until: ["Question:", "</s>", "<|im_end|>"], do_sample: false}}
metric_list: [{{metric: exact_match}}]
"""
ROLLING = """
task: small_rolling
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/arc_easy.jsonl}}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{query}}}}"
metric_list: [{{metric: word_perplexity}}]
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save(*tiny.llama(), tmp_path_factory.mktemp("model"))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tasks of the harness over local files."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    rows = [ROWS["ARCEasy"][0], ROWS["ARCChallenge"][0], ROWS["PIQA"][0]]
    write_rows(tmp_path / "arc_easy.jsonl", rows)
    write_rows(tmp_path / "gsm8k.jsonl", ROWS["GSM8K"])
    for name, text in (("choices", CHOICES), ("answers", ANSWERS), ("rolling", ROLLING)):
        (tmp_path / f"{name}.yaml").write_text(text.format(folder=tmp_path))
    return tmp_path


@pytest.mark.filterwarnings("default")
def test_the_harness_agrees_with_our_tasks(model: Path, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    options: dict[str, Any] = {"task_data": files, "runtime": "reference"}
    judged, folder = evaluate_harness(
        model, "small_choices,small_answers,small_rolling", out=tmp_path / "judged", **options
    )
    ours, our_folder = evaluate_tasks(model, "arc_easy,gsm8k", out=tmp_path / "ours", **options)
    figures = judged["harness"]["results"]
    for metric in ("acc", "acc_norm"):
        ours_mean = ours["tasks"][0]["metrics"][metric]["mean"]
        assert figures["small_choices"][f"{metric},none"] == pytest.approx(ours_mean)
    assert figures["small_rolling"]["word_perplexity,none"] > 1
    samples = [json.loads((folder / "samples/small_answers.jsonl").read_text())]
    row = json.loads((our_folder / "items/gsm8k.jsonl").read_text())
    assert samples[0]["resps"] == [[row["answer"]]]
    again, _ = evaluate_harness(
        model, "small_choices,small_answers,small_rolling", out=tmp_path / "judged", **options
    )
    assert again["harness"]["results"] == figures


@pytest.mark.filterwarnings("default")
def test_tasks_without_local_data_are_refused(model: Path, files: Path, tmp_path: Path) -> None:
    pytest.importorskip("lm_eval")
    (files / "missing.yaml").write_text(
        CHOICES.format(folder=files / "nowhere").replace("small_choices", "missing_choices")
    )
    for task in ("missing_choices", "no_task_of_this_name"):
        with pytest.raises(BadInput, match="cannot load .* without a network"):
            evaluate_harness(model, task, task_data=files, out=tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_without_the_harness(model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(Unsupported, match=r"featherweight\[eval\]"):
        evaluate_harness(model, "piqa")
    with pytest.raises(UsageError, match="name a task"):
        evaluate_harness(model, " , ")
    with pytest.raises(BadInput, match="is no folder"):
        evaluate_harness(model, "piqa", task_data=tmp_path / "missing")
