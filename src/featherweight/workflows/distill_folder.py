"""The shell's `distill`: a teacher and a student in, a trained student out.

    OUT/                     the student, an ordinary transformers folder
    OUT/results.json         what it cost and what it recovered
    OUT/report.html          the same for people

Stages: find teacher and student -> correct the teacher -> the teacher answers -> release the
teacher -> measure the student -> train -> measure again -> save. The work lies in OUT.partial/
until it is finished; every stage is kept there, and the same command continues a killed run. With
`method="offline"` and "sequence" the teacher is not in memory while the student learns.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from ..base import machine
from ..base.events import Listener, send_to, silent
from ..base.run_folder import RunFolder, is_finished
from ..base.sampling import Sampling
from ..distillation import correct, distill, distill_on_policy, distill_sequences, write_texts
from ..distillation.page import distillation_page
from ..interchange import loading
from ..interchange.saving import save_dense
from ..interchange.source import Source
from ..models.answers import Answers, Full, Kind, write_answers
from ..quantization.evidence.results import load_results, write_results
from ..quantization.layers import keep_decoded
from ..reporting import write_page
from ..training import Step, history
from ..training.losses import PolicyGradientKL
from .distill_aligned import AlignedMeasures, distill_aligned
from .distill_measures import HELD_OUT, StudentMeasures
from .distill_plan import DistillSettings, Plan, plan_distillation
from .students import count_parameters, make_student
from .teach_folder import facts as answer_facts

# Names of journal entries, and the version of what they stand for.
CORRECTION, VERSION = "corrected-teacher", "1"
METHOD_NAME = "across tokenizers"
NUM_POINTS = 8  # of the held-out curve while the student learns
CORRECTION_RATE = 0.2  # of the student's learning rate

Output = TypeVar("Output")
StepMaker = Callable[[nn.Module], Iterator[Step]]


def distill_folder(
    teacher: str | Path,
    student: str,
    out: Path | str,
    settings: DistillSettings | None = None,
    *,
    fresh: bool = False,
    overwrite: bool = False,
    listener: Listener = silent,
) -> dict[str, Any]:
    """Distil `teacher` into `student`, write the folder `out`, and return the content of its
    results.json.

    Args: teacher, an alias, folder, GGUF file or hub id; student, as in `find_student`; fresh,
    forget an unfinished run; overwrite, replace a finished one. Raises UsageError for settings that
    do not go together and tokenizers that differ, BadInput for models and texts that cannot be
    used, PreflightRefused when the answers do not fit on the disk.
    """
    settings = settings or DistillSettings()
    plan = plan_distillation(teacher, student, settings, listener)
    recipe = plan.identity()
    if not (fresh or overwrite) and is_finished(out, recipe):
        return dict(load_results(Path(out)))
    with RunFolder(out, recipe, fresh=fresh, overwrite=overwrite) as run:
        results = Distillation(plan, run, listener).work()
        write_results(results, run.folder)
        write_page(distillation_page(results), run.folder)
        run.publish()
    return results


class Distillation:
    """The stages of a run, each kept in its folder."""

    def __init__(self, plan: Plan, run: RunFolder, listener: Listener) -> None:
        self.plan, self.run, self.user_listener = plan, run, listener
        self.listener = send_to(run.listener, listener)
        self.settings = plan.settings
        self.seconds: dict[str, float] = {}
        self._teacher: nn.Module | None = None

    def work(self) -> dict[str, Any]:
        """All stages; returns the content of results.json."""
        plan, run = self.plan, self.run
        measures = self._measure_seconds("judge", self._prepare_measures)
        teacher = self._measure_seconds("judge", lambda: measures.of_teacher(self.teacher))
        self._measure_seconds("correct", self._correct)
        make_steps, facts = self._measure_seconds("answers", self._prepare)
        student = make_student(plan.student, self.teacher() if plan.student.of_teacher else None)
        if self.settings.method in ("offline", "sequence") and plan.alignment is None:
            self._teacher = None
        record_before = self._measure_seconds(
            "evaluate", lambda: measures.of_student("before", student)
        )
        self._measure_seconds("train", lambda: self._train(make_steps(student), student, measures))
        dtype = stored_dtype(plan.source)
        round_weights(student, dtype)
        record_after = self._measure_seconds(
            "evaluate", lambda: measures.of_student("after", student)
        )
        save_dense(student.eval().to(dtype), plan.student_tokenizer, run.folder)
        return {
            "teacher": {**_facts(plan.source), **teacher},
            "student": {
                "made_from": plan.student.text,
                "num_parameters": count_parameters(student),
                "dtype": str(dtype).removeprefix("torch."),
            },
            "method": METHOD_NAME if plan.alignment else self.settings.method,
            "settings": self.settings.as_dict(),
            "text": plan.text.fingerprint,
            "written": facts,
            "before": record_before,
            "after": record_after,
            "training": {
                name: history(run.folder, stage)
                for name, stage in (
                    ("steps", "distill"),
                    ("held_out", HELD_OUT),
                    ("correction", "correct"),
                )
            },
            "seconds": {name: round(number, 2) for name, number in self.seconds.items()},
            "peak_memory_bytes": machine.peak_memory_bytes(),
            "machine": machine.describe(),
            "versions": machine.versions(),
        }

    def teacher(self) -> nn.Module:
        """The teacher in memory, corrected when that is done."""
        if self._teacher is None:
            is_corrected = self.run.done(CORRECTION, VERSION) is not None
            path = self.run.work / CORRECTION if is_corrected else self.plan.source.path
            self._teacher, _ = loading.load(path, torch.float32, listener=self.listener)
        return self._teacher

    def _measure_seconds(self, name: str, stage: Callable[[], Output]) -> Output:
        start = time.monotonic()
        output = stage()
        self.seconds[name] = self.seconds.get(name, 0) + time.monotonic() - start
        return output

    def _prepare_measures(self) -> StudentMeasures:
        """With all logits of the original about the held-out text, where they can be compared."""
        plan, folder = self.plan, self.run.work / "judge"
        if plan.alignment is not None:
            return AlignedMeasures(plan, self.run, self.teacher, self.listener)
        if self.run.done("judge", VERSION) is None:
            self._answer(plan.judge_tokens, folder, Full(), plan.settings.judge)
            self.run.finish_unit("judge", VERSION, None, {})
        return StudentMeasures(plan, self.run, Answers.open(folder), self.listener)

    def _answer(self, tokens: torch.Tensor, folder: Path, kind: Kind, text_name: str) -> Answers:
        plan, teacher = self.plan, self.teacher()
        with keep_decoded(teacher):
            return write_answers(
                teacher,
                tokens,
                folder,
                kind,
                tokenizer=plan.tokenizer,
                model_id=plan.source.fingerprint,
                name=plan.source.display_name,
                text_name=Path(text_name).name,
                vocabulary=plan.vocabulary,
                seed=plan.settings.recipe.seed,
                listener=self.listener,
            )

    def _correct(self) -> None:
        """Train the teacher on the text first, and keep it."""
        num_steps, recipe = self.settings.correct_steps, self.settings.recipe
        if not num_steps or self.run.done(CORRECTION, VERSION) is not None:
            return
        recipe = replace(recipe, steps=num_steps, lr=CORRECTION_RATE * recipe.lr)
        teacher: Any = self.teacher().requires_grad_()
        for _ in correct(teacher, self.plan.text.tokens, recipe, self.run, self.user_listener):
            pass
        folder = self.run.work / CORRECTION
        shutil.rmtree(folder, ignore_errors=True)
        save_dense(teacher.eval(), self.plan.tokenizer, folder)
        self.run.finish_unit(CORRECTION, VERSION, None, {})

    def _prepare(self) -> tuple[StepMaker, dict[str, Any]]:
        """What the teacher does before the student learns: answers or texts; and what then makes
        the steps of a student.
        """
        plan, settings, run, recipe = self.plan, self.settings, self.run, self.settings.recipe
        if plan.alignment is not None:
            facts: dict[str, Any] = {"tokenizers": str(plan.alignment.match)}
            return lambda student: distill_aligned(
                student, self.teacher(), plan, run, self.user_listener
            ), facts
        if settings.method == "offline":
            answers = self._answers()
            facts = answer_facts(answers)
            facts.pop("folder")  # it is gone when the run is finished
            return lambda student: distill(student, answers, recipe, run, self.user_listener), facts
        examples = []
        sampling = Sampling(temperature=1.0, max_tokens=settings.answer_tokens)
        if settings.method == "sequence" or settings.share < 1:
            examples = write_texts(
                self.teacher(),
                plan.prompts,
                run,
                sampling,
                recipe.seed,
                model_id=plan.source.fingerprint,
                listener=self.listener,
            )
        facts = {"prompts": len(plan.prompts), "texts": len(examples)}
        if settings.method == "sequence":
            return lambda student: distill_sequences(
                student, examples, recipe, run, self.user_listener
            ), facts
        term = (
            PolicyGradientKL() if settings.method == "policy-gradient" else recipe.term("reverse")
        )
        return lambda student: distill_on_policy(
            student,
            self.teacher(),
            plan.prompts,
            recipe,
            run,
            terms=[term],
            examples=examples,
            share=settings.share,
            sampling=sampling,
            vocabulary=plan.vocabulary,
            listener=self.user_listener,
        ), facts

    def _answers(self) -> Answers:
        """The teacher's answers about the training text."""
        plan, folder = self.plan, self.run.work / "answers"
        if self.run.done("answers", VERSION) is None:
            names = ", ".join(source["name"] for source in plan.text.fingerprint["sources"])
            self._answer(plan.text.tokens, folder, self.settings.kind, names)
            self.run.finish_unit("answers", VERSION, None, {})
        return Answers.open(folder)

    def _train(self, steps: Iterator[Step], student: nn.Module, measures: StudentMeasures) -> None:
        """All steps, with a look at the held-out text now and then."""
        interval = max(1, self.settings.recipe.steps // NUM_POINTS)
        for step in steps:
            if step.number % interval == 0 or step.number == step.total:
                measures.point(step.number, step.total, student)


def round_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Round the weights to `dtype` where they are: what is measured is what is saved."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.to(dtype))


def stored_dtype(source: Source) -> torch.dtype:
    """The dtype of the teacher's files, bfloat16 for a teacher of codes."""
    name = source.true_config.get("dtype") or source.true_config.get("torch_dtype")
    dtype = getattr(torch, str(name), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.bfloat16


def _facts(source: Source) -> dict[str, Any]:
    return {"name": source.display_name, "fingerprint": source.fingerprint}
