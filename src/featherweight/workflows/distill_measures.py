"""What is measured of teacher and student in a distillation: agreement on held-out text, answers to
a few prompts, tasks. Each measurement is kept in the run folder.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from ..base.events import Event, Listener, silent
from ..base.run_folder import RunFolder
from ..base.sampling import Sampling
from ..data.tokens import has_template
from ..evaluation import KL, Perplexity, evaluate
from ..interchange.saving import save_dense
from ..models.answers import Answers
from ..models.sampling import rollouts
from ..quantization.layers import keep_decoded
from .distill_plan import Plan
from .distill_text import prompt_ids

HELD_OUT = "held_out"
POINT_WINDOWS = 2  # of the held-out text, for each point of the curve
SAMPLE_TOKENS = 64
QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "What is 12 plus 30?",
)
BEGINNINGS = ("The history of the city", "In the beginning", "def add(a, b):")
VERSION = "1"


class StudentMeasures:
    """judge: the original's answers about the held-out text. distance: the entry of `quality` that
    says how far the student is from its teacher.
    """

    distance = "kl"

    def __init__(
        self, plan: Plan, run: RunFolder, judge: Answers | None, listener: Listener
    ) -> None:
        self.plan, self.run, self.judge, self.listener = plan, run, judge, listener

    def of_teacher(self, teacher: Callable[[], nn.Module]) -> dict[str, Any]:
        """The original's size, answers and tasks. teacher: loads it when it is needed."""
        record = self.run.done("teacher", VERSION)
        if record is None:
            model = teacher()
            with keep_decoded(model):
                record = {
                    "num_parameters": self.plan.source.anatomy.num_parameters
                    if not self.plan.source.is_packed
                    else sum(p.numel() for p in model.parameters()),
                    "samples": self._samples(model, self.plan.tokenizer),
                }
            record["tasks"] = self._tasks("teacher", self.plan.source.path)
            self.run.finish_unit("teacher", VERSION, None, record)
        return record

    def of_student(self, moment: str, student: nn.Module) -> dict[str, Any]:
        """Agreement, answers and tasks of the student. moment: "before" or "after"."""
        record = self.run.done(moment, VERSION)
        if record is None:
            record = {
                "quality": self.quality(student, self.num_windows, self.listener),
                "samples": self._samples(student, self.plan.student_tokenizer),
                "tasks": self._student_tasks(moment, student),
            }
            self.run.finish_unit(moment, VERSION, None, record)
        return record

    def point(self, step: int, total: int, student: nn.Module) -> None:
        """One point of the held-out curve, as an event."""
        quality = self.quality(student, POINT_WINDOWS)
        names = (self.distance, *(name for name in ("top1",) if name in quality))
        values = {name: quality[name]["mean"] for name in names}
        message = f"{self.distance} {values[self.distance]:.4g} nats"
        self.listener(Event(HELD_OUT, step, total, message=message, values=values))

    @property
    def num_windows(self) -> int:
        """All of the held-out text."""
        return len(self.plan.judge_tokens)

    def quality(
        self, student: nn.Module, count: int, listener: Listener = silent
    ) -> dict[str, Any]:
        """Perplexity, and KL and agreement with the original, over `count` windows."""
        assert self.judge is not None
        tokens, name = self.plan.judge_tokens[:count], Path(self.plan.settings.judge).name
        # `KL` checks that answers and windows are the same text as a whole; a part of them is read
        # as from a model.
        judge: Any = self.judge if count == len(self.judge) else self.judge.__call__
        model = ShortTable(student, self.plan.vocabulary)
        metrics = [Perplexity(tokens, name), KL(judge, tokens, name)]
        return evaluate(model, metrics, listener).quality

    def _samples(self, model: Any, tokenizer: Any) -> list[dict[str, str]]:
        """Greedy answers to a few prompts."""
        texts = QUESTIONS if has_template(tokenizer) else BEGINNINGS
        prompts = [prompt_ids(tokenizer, text) for text in texts]
        context = getattr(model.config, "max_position_embeddings", None) or 1 << 20
        room = context - max(map(len, prompts))
        if room < 1:
            return []
        sampling = Sampling(temperature=0.0, max_tokens=min(SAMPLE_TOKENS, room))
        answers = rollouts(model, prompts, sampling=sampling)
        return [
            {
                "question": text,
                "answer": tokenizer.decode(answers.answer(index), skip_special_tokens=True),
            }
            for index, text in enumerate(texts)
        ]

    def _student_tasks(self, moment: str, student: Any) -> list[dict[str, Any]]:
        if self.plan.settings.tasks is None:
            return []
        folder = self.run.work / f"student-{moment}"
        save_dense(student, self.plan.student_tokenizer, folder)
        return self._tasks(moment, folder)

    def _tasks(self, moment: str, model: Any) -> list[dict[str, Any]]:
        """The figures of the tasks, through the fastest engine that runs the model."""
        from .evaluate_tasks import evaluate_tasks

        settings = self.plan.settings
        if settings.tasks is None:
            return []
        results, _ = evaluate_tasks(
            model,
            settings.tasks,
            items=settings.items,
            task_data=settings.task_data,
            out=self.run.work / f"tasks-{moment}",
            listener=self.listener,
        )
        tasks: list[dict[str, Any]] = results["tasks"]
        return tasks


class ShortTable(nn.Module):
    """A model without the logits of ids that only pad its table."""

    def __init__(self, model: nn.Module, vocabulary: int) -> None:
        super().__init__()
        self.model, self.vocabulary = model, vocabulary

    def forward(self, tokens: Tensor, use_cache: bool = False) -> SimpleNamespace:
        """The logits of the first `vocabulary` ids."""
        logits = self.model(tokens, use_cache=use_cache).logits
        return SimpleNamespace(logits=logits[..., : self.vocabulary])
