"""How the tokenizers of a teacher and a student go together.

    match = match_tokenizers(teacher_tokenizer, student_tokenizer)
    match.kind      "same"      the ids mean the same: any loss of tokens
                    "padded"    those below match.vocabulary do: TokenLoss(vocabulary=...)
                    "aligned"   another vocabulary: CrossTokenizerLoss

Everything else is refused with its reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from jaxtyping import Int64
from torch import Tensor

from ..base.errors import UsageError
from ..data.tokens import has_template
from .vocabulary import Vocabulary, difference

Kind = Literal["same", "padded", "aligned"]

# Capitals, accents, runs of white space and digits: what tokenizers that lose text lose.
PROBE_TEXTS = (
    "The Quick BROWN fox, 1905;  two spaces.\n\tdef f(x):\n        return x**2\n",
    "caf\u00e9 \u2014 \u201cna\u00efve\u201d \u00dcber",
)
PROBE_CHATS = (
    [{"role": "user", "content": "Is it 3?"}, {"role": "assistant", "content": "No, 4."}],
    [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
        {"role": "assistant", "content": "d"},
    ],
)


@dataclass(frozen=True, eq=False)
class TokenizerMatch:
    """kind: see the module. vocabulary: how many ids both share from 0 on, for "padded"; else None.
    teacher_ids, student_ids: the tokens of the same bytes, one to one. share: their number over
    that of the smaller vocabulary.
    """

    kind: Kind
    teacher: Vocabulary = field(repr=False)
    student: Vocabulary = field(repr=False)
    teacher_ids: Int64[Tensor, " matched"] = field(repr=False)
    student_ids: Int64[Tensor, " matched"] = field(repr=False)
    vocabulary: int | None = None

    @property
    def share(self) -> float:
        """Of the smaller vocabulary, how many tokens the other one has too."""
        sizes = (sum(map(bool, side.contents)) for side in (self.teacher, self.student))
        return len(self.teacher_ids) / min(sizes)

    def __str__(self) -> str:
        sizes = f"{len(self.teacher)} and {len(self.student)} tokens"
        if self.kind == "same":
            return f"the same tokenizer, {len(self.student)} tokens"
        if self.kind == "padded":
            return f"the same tokens below {self.vocabulary}, of {sizes}"
        return f"tokenizers of {sizes}, {len(self.teacher_ids)} of which are the same"


def match_tokenizers(
    teacher_tokenizer: Any,
    student_tokenizer: Any,
    *,
    texts: Sequence[str] = PROBE_TEXTS,
    has_chats: bool = False,
    teacher_logits: int | None = None,
    student_logits: int | None = None,
    min_share: float = 0.1,
) -> TokenizerMatch:
    """How the two go together.

    Args: texts, samples of what will be read; has_chats, whether there will be conversations, whose
    templates must then write the same; teacher_logits, student_logits, the numbers of logits of the
    two models, when known: they differ where a vocabulary is padded; min_share, the share of the
    smaller vocabulary that both must have.

    The ids "mean the same" when every id that both have is the same token and `texts` get the same
    ids. Raises UsageError with the reason: a tokenizer that loses text, too few tokens in common,
    templates that differ.
    """
    teacher, student = Vocabulary.of(teacher_tokenizer), Vocabulary.of(student_tokenizer)
    if has_chats:
        check_templates(teacher, student)
    teacher_ids, student_ids = _matched_ids(teacher, student)
    shared = min(len(teacher), len(student))
    is_shared = teacher.pieces[:shared] == student.pieces[:shared]
    if is_shared and all(teacher.encode(text) == student.encode(text) for text in texts):
        is_same = len(teacher) == len(student) and teacher_logits == student_logits
        kind: Kind = "same" if is_same else "padded"
        vocabulary = None if is_same else shared
        return TokenizerMatch(kind, teacher, student, teacher_ids, student_ids, vocabulary)
    match = TokenizerMatch("aligned", teacher, student, teacher_ids, student_ids)
    if match.share < min_share:
        raise UsageError(
            f"the tokenizers of {teacher.name} and {student.name} have "
            f"{len(teacher_ids)} tokens in common, {100 * match.share:.1f} % of the smaller "
            f"vocabulary and less than {100 * min_share:.0f} %: too few to compare the models by; "
            "train on the teacher's own texts instead (sequence-level distillation)"
        )
    for side in (teacher, student):
        for text in texts:
            side.lengths(side.encode(text), text)
    return match


def check_templates(teacher: Vocabulary, student: Vocabulary) -> None:
    """Raise UsageError unless both chat templates exist and write the same conversations."""
    for side in (teacher, student):
        if not has_template(side.tokenizer):
            raise UsageError(f"{side.name} has no chat template, and the examples are chats")
    for messages in PROBE_CHATS:
        first, second = (
            str(side.tokenizer.apply_chat_template(messages, tokenize=False))
            for side in (teacher, student)
        )
        if first != second:
            excerpts = difference(first.encode(), second.encode())
            raise UsageError(
                f"the chat templates differ: {teacher.name} writes {excerpts[0]!r}, {student.name} "
                f"{excerpts[1]!r}, so the models would read different texts; give the student the "
                "teacher's template, or use plain text"
            )


def _matched_ids(teacher: Vocabulary, student: Vocabulary) -> tuple[Tensor, Tensor]:
    """The tokens of the same bytes, by the teacher's id. The tokens that end a text match each
    other too, whatever they are called, unless one of them has its namesake.
    """
    teacher_keys, student_keys = teacher.ids(), student.ids()
    pairs = {id: student_keys[key] for key, id in teacher_keys.items() if key in student_keys}
    ends = teacher.tokenizer.eos_token_id, student.tokenizer.eos_token_id
    if None not in ends and ends[0] not in pairs and ends[1] not in pairs.values():
        pairs[ends[0]] = ends[1]
    teacher_ids = sorted(pairs)
    return torch.tensor(teacher_ids), torch.tensor([pairs[id] for id in teacher_ids])
