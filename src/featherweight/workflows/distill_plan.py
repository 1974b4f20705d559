"""What a distillation is told, and everything that is known about it before the long work."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import data
from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.files import sha256
from ..distillation import (
    AlignedText,
    Recipe,
    TokenizerMatch,
    aligned_windows,
    match_tokenizers,
)
from ..interchange.source import Source
from ..interchange.tokenizer_check import load_checked_tokenizer
from ..models.answers import Kind, TopK
from .distill_text import find_prompts, training_windows
from .evidence import read_text
from .preflight import check_length
from .students import Student, find_student

PROMPT_TOKENS = 64  # of a window, as the prompt of a model without a chat template
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
    kind: Kind = field(default_factory=lambda: TopK(64, draws=128))
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
        entries["texts"] = {path.name: sha256(path) for path in self.texts}
        return entries


@dataclass(frozen=True, eq=False)
class Alignment:
    """Text as two tokenizers divide it: windows to learn from, and those of the held-out text,
    which has `judge_bytes` bytes.
    """

    match: TokenizerMatch
    windows: list[AlignedText]
    judge_windows: list[AlignedText]
    judge_bytes: int


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything that is known before the long work. alignment: where tokenizers differ."""

    source: Source
    student: Student
    settings: DistillSettings
    tokenizer: Any
    student_tokenizer: Any
    text: data.Calibration
    judge_tokens: torch.Tensor
    prompts: list[list[int]]
    vocabulary: int
    alignment: Alignment | None = None

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
    rows = _table_rows(source, tokenizer)
    student_model = find_student(student, source, rows, tokenizer.eos_token_id)
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
        prompts = find_prompts(
            tokenizer,
            settings.prompts,
            text,
            settings.num_prompts,
            min(PROMPT_TOKENS, settings.length // 2),
        )
    noun, count = ("prompts", len(prompts)) if prompts else ("windows", len(text))
    settings.recipe.epochs(count, noun)
    plan = Plan(
        *(source, student_model, settings, tokenizer, tokenizer),
        *(text, judge_tokens, prompts, rows),
    )
    return plan if student_model.source is None else _match(plan, student_model.source)


def _match(plan: Plan, student: Source) -> Plan:
    """The plan for a student that has a tokenizer of its own. Raises UsageError for one that does
    not go together with the teacher's, and for methods that need one tokenizer.
    """
    settings, student_tokenizer = plan.settings, load_checked_tokenizer(student.path)
    match = match_tokenizers(
        plan.tokenizer,
        student_tokenizer,
        teacher_logits=plan.vocabulary,
        student_logits=_table_rows(student, student_tokenizer),
    )
    if match.kind != "aligned":
        return replace(
            plan,
            student_tokenizer=student_tokenizer,
            vocabulary=match.vocabulary or plan.vocabulary,
        )
    if settings.method != "offline" or settings.recipe.divergence or settings.correct_steps:
        raise UsageError(
            f"{match}: such models are compared on given text, span by span, beside each other; "
            "leave method, divergence and correction out"
        )
    texts = [
        [plan.tokenizer.decode(row, skip_special_tokens=True) for row in tokens]
        for tokens in (plan.text.tokens, plan.judge_tokens)
    ]
    lengths = (settings.length, settings.judge_length)
    windows = [aligned_windows(match, *pair) for pair in zip(texts, lengths, strict=True)]
    alignment = Alignment(match, windows[0], windows[1], sum(len(t.encode()) for t in texts[1]))
    return replace(plan, student_tokenizer=student_tokenizer, alignment=alignment)


def _table_rows(source: Source, tokenizer: Any) -> int:
    """The rows of a model's embedding."""
    return len(tokenizer) if source.is_packed else source.anatomy.embedding_shape[0]
