"""From a teacher and a student to the folder of a trained student."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from featherweight import data
from featherweight.base.errors import BadInput, UsageError
from featherweight.distillation import Recipe
from featherweight.models.answers import Full
from featherweight.models.scratch import scratch_model
from featherweight.workflows import distill_folder as workflow
from featherweight.workflows.distill_folder import distill_folder
from featherweight.workflows.distill_plan import DistillSettings
from featherweight.workflows.report_folder import report_folder

TEXT = "\n\n\n".join(f"the cat {i} sat on the mat and saw number {i * 7} there" for i in range(900))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("distill")
    tiny.save(*tiny.llama(), path / "teacher")
    (path / "text.txt").write_text(TEXT)
    return path


def settings_of(folder: Path, **changes: Any) -> DistillSettings:
    recipe = changes.pop("recipe", Recipe(steps=4, batch=4, lr=3e-3, warmup=1))
    text = folder / "text.txt"
    return DistillSettings(
        recipe=recipe,
        texts=(text,),
        windows=changes.pop("windows", 16),
        length=24,
        num_prompts=8,
        answer_tokens=5,
        judge=str(text),
        judge_windows=3,
        judge_length=24,
        **changes,
    )


@pytest.mark.parametrize("method", ["offline", "on-policy", "policy-gradient", "sequence"])
def test_every_method_makes_a_folder_that_loads(folder: Path, tmp_path: Path, method: str) -> None:
    results = distill_folder(
        folder / "teacher", "blocks:1", tmp_path / "out", settings_of(folder, method=method)
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.config.num_hidden_layers == 1
    assert len(results["training"]["steps"]) == 4
    assert results["before"]["quality"]["kl"]["mean"] > 0
    assert len(results["after"]["samples"]) == len(results["teacher"]["samples"]) > 0
    assert not (tmp_path / "out" / "work").exists()
    page = tmp_path / "out" / "report.html"
    text = page.read_text()
    page.unlink()
    assert report_folder(tmp_path / "out") == [page]
    assert page.read_text() == text


def test_what_is_measured_is_what_is_saved(folder: Path, tmp_path: Path) -> None:
    """The KL of the report is that of the folder, after its weights were rounded."""
    from featherweight.workflows.evaluate_folder import evaluate_folder

    distill_folder(
        folder / "teacher", "blocks:0", tmp_path / "out", settings_of(folder, kind=Full())
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    quality = evaluate_folder(
        tmp_path / "out",
        against=str(folder / "teacher"),
        text=str(folder / "text.txt"),
        windows=3,
        length=24,
    )["quality"]
    kl = results["after"]["quality"]["kl"]["mean"]
    assert kl == pytest.approx(quality["kl"]["mean"], rel=1e-3)


@pytest.fixture(scope="module")
def whole(folder: Path) -> Path:
    """A run that nobody stopped."""
    out = folder / "whole"
    distill_folder(folder / "teacher", "blocks:1", out, settings_of(folder, correct_steps=2))
    return out


@pytest.mark.parametrize("stage", ["_correct", "_prepare", "_train"])
def test_a_stopped_run_continues_to_the_same_weights(
    folder: Path, whole: Path, tmp_path: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(folder, correct_steps=2)
    real = getattr(workflow.Distillation, stage)

    def fail(*arguments: Any) -> None:
        real(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(workflow.Distillation, stage, fail)
        with pytest.raises(KeyboardInterrupt):
            distill_folder(folder / "teacher", "blocks:1", tmp_path / "stopped", settings)
    distill_folder(folder / "teacher", "blocks:1", tmp_path / "stopped", settings)
    weights = [load_file(out / "model.safetensors") for out in (whole, tmp_path / "stopped")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_student_from_scratch_and_one_of_channels(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "shape.yaml").write_text("width: 32\nblocks: 2\nheads: 2\ncontext: 64\n")
    (tmp_path / "map.yaml").write_text("key_heads: [0]\n")
    for student in (str(tmp_path / "shape.yaml"), f"channels:{tmp_path / 'map.yaml'}"):
        out = tmp_path / f"out-{len(student)}"
        results = distill_folder(folder / "teacher", student, out, settings_of(folder))
        parameters = results["student"]["num_parameters"]
        assert parameters < results["teacher"]["num_parameters"]


def test_padding_of_the_table_is_left_out(folder: Path, tmp_path: Path) -> None:
    """A student with more rows than the tokenizer has tokens learns those that exist."""
    model, tokenizer = tiny.llama(seed=3)
    model.resize_token_embeddings(model.config.vocab_size + 20)
    tiny.save(model, tokenizer, tmp_path / "padded")
    results = distill_folder(
        folder / "teacher", str(tmp_path / "padded"), tmp_path / "out", settings_of(folder)
    )
    assert results["after"]["quality"]["kl"]["mean"] < results["before"]["quality"]["kl"]["mean"]


def test_across_tokenizers(folder: Path, tmp_path: Path) -> None:
    teacher_tokenizer, tokenizer = data.bpe_tokenizer(TEXT, 320), data.byte_tokenizer()
    teacher = scratch_model(320, 32, 2, 2, context=128)
    tiny.save(teacher, teacher_tokenizer, tmp_path / "teacher")
    student = scratch_model(len(tokenizer), 32, 2, 2, context=128, seed=1)
    tiny.save(student, tokenizer, tmp_path / "student")
    settings = settings_of(folder, recipe=Recipe(steps=12, batch=4, lr=3e-3, warmup=1))
    names = (tmp_path / "teacher", str(tmp_path / "student"), tmp_path / "out")
    results = distill_folder(*names, settings)
    qualities = [results[moment]["quality"] for moment in ("before", "after")]
    assert results["method"] == "across tokenizers"
    assert qualities[1]["bits_per_byte"] < qualities[0]["bits_per_byte"]
    assert "Bits per byte" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UsageError, match="beside each other"):
        distill_folder(*names[:2], tmp_path / "x", settings_of(folder, method="sequence"))


def test_tasks_before_and_after(folder: Path, tmp_path: Path) -> None:
    settings = settings_of(folder, tasks="op_chain", items=2)
    results = distill_folder(folder / "teacher", "blocks:1", tmp_path / "out", settings)
    for moment in ("teacher", "before", "after"):
        assert [task["name"] for task in results[moment]["tasks"]] == ["op_chain"]
    assert "op_chain" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    ("student", "changes", "message"),
    [
        ("every:9", {}, "at least two"),
        ("blocks:1,0", {}, "rising"),
        ("blocks:x", {}, "blocks:0,4,8"),
        ("blocks:0", {"windows": 10**6}, "needs|needed"),
        ("blocks:0", {"windows": 2}, "a step needs"),
        ("blocks:0", {"method": "magic"}, "method"),
        ("blocks:0", {"share": 0.5}, "on-policy"),
        ("nothing-of-this-name", {}, "nothing-of-this-name"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    folder: Path, tmp_path: Path, student: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises((UsageError, BadInput), match=message):
        distill_folder(
            folder / "teacher", student, tmp_path / "out", settings_of(folder, **changes)
        )
    assert not (tmp_path / "out.partial").exists()
