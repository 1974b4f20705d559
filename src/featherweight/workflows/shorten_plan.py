"""What `fw shorten` is told, and everything that is known before the long work."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from ..base import spec
from ..base.errors import BadInput, UsageError
from ..base.events import Listener, silent
from ..data.tasks import BY_NAME, Task, TaskExample, files_of, find_tasks, settings_of
from ..evaluation.task_prompts import PromptWriter
from ..inference.text.tokenizer import ChatTokenizer
from ..interchange.source import Source
from ..reasoning.advantages import Control, RewardControl
from ..reasoning.difficulty import Buckets, thirds
from ..reasoning.governor import Governor
from ..reasoning.loop import Recipe
from ..reasoning.questions import Question, make_questions
from ..reasoning.rewards import BY_NAME as RULES
from ..reasoning.short_arc import ShortARC
from .evaluate_tasks import check_template
from .teach_folder import load_checked_tokenizer

SHORT_ARC = "short_arc"
SAMPLERS = ("local", "native")


@dataclass(frozen=True)
class ShortenSettings:
    """recipe: of the reinforcement. task: as in `fw evaluate --tasks`, one task. reward:
    "short_arc", or a rule such as "kimi(weight=0.4)" or "none". strength: of short_arc, the
    largest pressure; floor: the thought that is never too long, in tokens. questions: of the
    training; judge_questions: held-out ones, answered before, after and, `points` times, meanwhile;
    patience: so many evaluations in a row with too low an accuracy stop the run. warm_start: steps
    of learning traces first; warm_batch, warm_lr: of these. tolerance: of accuracy, from 0 to 1.
    sampler: "local" (the policy itself) or "native" (its weights in 8 bits on the native engine).
    device: "cpu", "cuda" (None: a GPU when there is one).
    """

    task: str
    recipe: Recipe = field(default_factory=Recipe)
    task_data: Path | None = None
    chat: bool | None = None
    reward: str = SHORT_ARC
    strength: float = 1.0
    floor: float = 16.0
    questions: int = 1000
    judge_questions: int = 200
    points: int = 5
    patience: int = 3
    tolerance: float = 0.02
    warm_start: int = 0
    warm_batch: int = 16
    warm_lr: float = 1e-4
    sampler: str = "local"
    device: str | None = None

    def __post_init__(self) -> None:
        if self.sampler not in SAMPLERS:
            raise UsageError(f"sampler={self.sampler!r}: choose {' or '.join(SAMPLERS)}")
        if (
            min(self.questions, self.judge_questions, self.points, self.patience) < 1
            or self.warm_start < 0
        ):
            raise UsageError("questions, judge_questions, points and patience are at least 1")
        self.control()  # raises for a reward that does not exist

    def control(self) -> Control:
        """What gives the advantages. Raises UsageError for an unknown reward."""
        if self.reward == SHORT_ARC:
            steps = self.recipe.steps
            governor = Governor(
                self.strength,
                self.tolerance,
                ramp=max(1, steps // 5),
                warmup=min(20, steps // 10),
            )
            return ShortARC(floor=self.floor, governor=governor, late_steps=max(1, steps))
        return RewardControl(spec.parse(self.reward, RULES))

    def as_dict(self) -> dict[str, Any]:
        """The settings as data for run.yaml."""
        return asdict(self) | {"task_data": None, "device": None}


@dataclass(frozen=True, eq=False)
class ShortenPlan:
    """Everything that is known before the long work. difficulties: of the judged questions, where
    the task knows them.
    """

    source: Source
    settings: ShortenSettings
    tokenizer: Any
    task: Task
    chat: bool
    questions: list[Question]
    judge_questions: list[Question]
    buckets: Buckets
    think_end: tuple[int, ...]

    def identity(self) -> dict[str, Any]:
        """What the result depends on."""
        return {
            "model": self.source.display_name,
            "fingerprint": self.source.fingerprint,
            "settings": self.settings.as_dict(),
            "task": settings_of(self.task),
            "files": {name: path.name for name, path in files_of(self.task).items()},
            "questions": _digest(self.questions),
            "judge": _digest(self.judge_questions),
        }

    def difficulties(self) -> list[int | None]:
        """Of the judged questions."""
        return [self.task.difficulty(question.example) for question in self.judge_questions]


def plan_shortening(
    model: str | Path, settings: ShortenSettings, listener: Listener = silent
) -> ShortenPlan:
    """Find the model, and read all questions; see `shorten_folder` for the errors."""
    tasks = find_tasks(settings.task, BY_NAME, settings.task_data)
    if len(tasks) != 1 or tasks[0].kind != "generation":
        raise UsageError(
            f"--task {settings.task!r}: one task whose answers are written, such as gsm8k, "
            "arithmetic or op_chain"
        )
    (task,) = tasks
    source = Source.find(model, listener)
    if source.is_packed:
        raise UsageError(
            f"{source.display_name} holds codes, which are not trained; shorten the original and "
            "quantize the outcome"
        )
    has_template = check_template(source, settings.chat)
    chat = task.is_message and has_template if settings.chat is None else settings.chat
    writer = PromptWriter(ChatTokenizer.open(source.path), task, chat)
    tokenizer = load_checked_tokenizer(source.path)
    if tokenizer.eos_token_id is None:
        raise BadInput(f"{source.display_name} has no end token, so its answers never end")
    train = list(islice(task.examples("train"), settings.questions))
    test = list(islice(task.examples("test"), settings.judge_questions))
    recipe, num_needed = settings.recipe, settings.recipe.prompts * settings.recipe.accumulate
    if len(train) < max(num_needed, settings.warm_batch if settings.warm_start else 1):
        raise UsageError(
            f"{task.name} gives {len(train)} questions, and a step needs {num_needed} of them (a "
            f"step of the warm start {settings.warm_batch}); ask for more questions"
        )
    buckets = thirds([task.difficulty(example) for example in train])

    def make(examples: Sequence[TaskExample]) -> list[Question]:
        return make_questions(
            examples,
            lambda example: writer.encode(writer.text(example)),
            lambda example: buckets(task.difficulty(example)),
            context=source.true_config.get("max_position_embeddings"),
            max_tokens=recipe.max_tokens,
        )

    think_end = tuple(tokenizer.encode(task.think_end, add_special_tokens=False))
    return ShortenPlan(
        source, settings, tokenizer, task, chat, make(train), make(test), buckets, think_end
    )


def _digest(questions: Sequence[Question]) -> str:
    text = json.dumps([question.ids for question in questions])
    return hashlib.sha256(text.encode()).hexdigest()
