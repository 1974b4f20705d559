"""What a distillation is told, and everything that is known about it before the long work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.files import sha256
from ..distillation import Recipe
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Kind, TopK
from .distill_text import find_prompts, training_windows
from .evidence import read_text
from .preflight import check_length
from .students import Student, find_student

METHODS = ("offline", "on-policy", "policy-gradient", "sequence")


@dataclass(frozen=True)
class DistillSettings:
    """What `distill_folder` can be told.

    method: of `METHODS`. recipe: how the student learns. texts: files to learn from (none: the
    shipped texts for calibration), cut into `windows` of `length` tokens. kind: what is kept of the
    teacher's answers. correct_steps: of the teacher's own training on the text first. prompts: a
    file of them, for texts that are sampled (None: see `find_prompts`), `num_prompts` of them,
    answered with `answer_tokens` at most. share: of the texts that the student writes on-policy;
    the teacher writes the others. judge: a held-out text, of which `judge_windows` windows of
    `judge_length` tokens measure the student. tasks, items, task_data: as in `evaluate_tasks`.
    """

    method: str = "offline"
    recipe: Recipe = field(default_factory=Recipe)
    texts: tuple[Path, ...] = ()
    windows: int = 512
    length: int = 512
    kind: Kind = field(default_factory=TopK)
    correct_steps: int = 0
    prompts: Path | None = None
    num_prompts: int = 512
    answer_tokens: int = 64
    share: float = 1.0
    judge: str = "wikitext2_test"
    judge_windows: int = 8
    judge_length: int = 512
    tasks: str | None = None
    items: int | None = None
    task_data: Path | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"method={self.method!r}: choose {', '.join(METHODS)}")
        is_on_policy = self.method in ("on-policy", "policy-gradient")
        if self.share != 1 and not is_on_policy:
            raise UsageError(
                "share is of on-policy methods: how many of the texts are the student's"
            )
        if self.method == "sequence" and self.recipe.divergence is not None:
            raise UsageError("sequence-level distillation learns text; it has no divergence")

    @property
    def samples_texts(self) -> bool:
        """Whether anybody writes texts after prompts."""
        return self.method != "offline"

    def as_dict(self) -> dict[str, Any]:
        """The settings as data for run.yaml."""
        entries = asdict(self) | {"kind": self.kind.settings()}
        for name in ("prompts", "task_data"):
            entries[name] = None if entries[name] is None else str(entries[name])
        entries["texts"] = {path.name: sha256(path) for path in self.texts if path.exists()}
        return entries


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is known before the long work."""

    source: Source
    student: Student
    settings: DistillSettings
    tokenizer: Any
    text: data.Calibration
    judge_tokens: torch.Tensor
    prompts: list[list[int]]
    vocabulary: int

    def identity(self) -> dict[str, Any]:
        """What the result depends on."""
        return {
            "teacher": self.source.display_name,
            "fingerprint": self.source.fingerprint,
            "student": self.student.identity,
            "settings": self.settings.as_dict(),
            "text": self.text.fingerprint["tokens_sha256"],
            "prompts": hashlib.sha256(json.dumps(self.prompts).encode()).hexdigest(),
            "judge": hashlib.sha256(self.judge_tokens.numpy().tobytes()).hexdigest(),
        }


def plan_distillation(
    teacher: str | Path, student: str, settings: DistillSettings, listener: Listener = silent
) -> Plan:
    """Find both models, and read all texts; see `distill_folder` for the errors."""
    source = Source.find(teacher, listener)
    tokenizer = load_checked_tokenizer(source.path)
    rows = source.anatomy.embedding_shape[0] if not source.is_packed else len(tokenizer)
    student_model = find_student(student, source, rows, tokenizer.eos_token_id)
    vocabulary = (
        rows
        if student_model.source is None
        else _shared_vocabulary(source, student_model.source, tokenizer)
    )
    for model in filter(None, (source, student_model.source)):
        check_length(model, settings.length, "--length N")
        check_length(model, settings.judge_length, "--judge-length N")
    text = training_windows(
        tokenizer, settings.texts, settings.windows, settings.length, settings.recipe.seed
    )
    judge_tokens = data.windows(
        tokenizer, read_text(settings.judge), settings.judge_length, settings.judge_windows
    )
    prompts = []
    if settings.samples_texts:
        half = settings.length // 2
        prompts = find_prompts(
            tokenizer, settings.prompts, text, settings.num_prompts, min(64, half)
        )
    noun, count = ("prompts", len(prompts)) if prompts else ("windows", len(text))
    settings.recipe.epochs(count, noun)
    return Plan(source, student_model, settings, tokenizer, text, judge_tokens, prompts, vocabulary)


def _shared_vocabulary(teacher: Source, student: Source, tokenizer: Any) -> int:
    """The ids that both models know: tables may be padded to different sizes. Raises UsageError for
    another tokenizer.
    """
    student_tokenizer = load_checked_tokenizer(student.path)
    rows = min(source.anatomy.embedding_shape[0] for source in (teacher, student))
    if student_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise UsageError(
            f"{teacher.display_name} and {student.display_name} have different tokenizers; their "
            "tokens cannot be compared one by one"
        )
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UsageError(
            f"the tokenizer has token {largest}, and one of the tables has only {rows} rows"
        )
    return rows
