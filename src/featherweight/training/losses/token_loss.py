"""The loss of a language model: a weighted sum of terms, over one forward pass of the student and
one of the teacher.

    loss = TokenLoss(CrossEntropy(), ForwardKL(weight=10, temperature=5), teacher=original)

The sum is over the predictions that count, and so is its weight; the loop divides one by the other
over the whole optimizer batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ...base.errors import BadInput, UsageError
from ...models.structure import evaluation_mode
from ..loss import Loss
from .terms import Term
from .views import Positions, View, check_finite, view


class TokenLoss(nn.Module):
    """`loss(model, batch) -> Loss`.

    terms: what is added up, each with its weight. teacher: a model that is run beside the student,
    in evaluation mode and without a graph; it is no part of this module's state. Without one, the
    whole distributions may be in the batch. vocabulary: compare the ids below it only, for models
    of one tokenizer whose padded vocabularies differ.

    batch: token ids (B, T), or a mapping with `input_ids`, and optionally `attention_mask`,
    `loss_mask` (B, T; see `Positions`), `teacher_logits` (B, T, vocabulary) and cached answers (see
    `TopKKL`); everything else is passed to both models.

    Raises UsageError for a term without its teacher, for vocabularies that differ, and for models
    that it cannot train (see `view`); BadInput for a teacher whose numbers are not finite and for
    ids outside of the vocabulary.
    """

    def __init__(
        self, *terms: Term, teacher: nn.Module | None = None, vocabulary: int | None = None
    ) -> None:
        super().__init__()
        if not terms:
            raise UsageError("a loss needs at least one term")
        names = [term.name for term in terms]
        self.terms = nn.ModuleDict(
            {
                name if names.count(name) == 1 else f"{name}_{index}": term
                for index, (name, term) in enumerate(zip(names, terms, strict=True))
            }
        )
        self.vocabulary = vocabulary
        # A tuple is no submodule: the teacher's weights are not saved, and train() does not reach
        # them.
        self._teacher = (teacher,)
        self._is_checked = False

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        return f"teacher={type(self._teacher[0]).__name__}, vocabulary={self.vocabulary}"

    def forward(self, model: nn.Module, batch: Tensor | Mapping[str, Any]) -> Loss:
        """The sums over one micro-batch."""
        positions = Positions(batch if isinstance(batch, Mapping) else {"input_ids": batch})
        sums = self._sums(model, positions)
        total = sum(self._term(name).factor * value for name, value in sums.items())
        assert isinstance(total, Tensor)
        parts = {name: value.detach() for name, value in sums.items()}
        return Loss(total, len(positions), parts)

    def gradient_norms(
        self, model: nn.Module, batch: Tensor | Mapping[str, Any]
    ) -> dict[str, float]:
        """The norm of the gradient of each term's mean, with its weight, by name: what weights are
        chosen by.
        """
        positions = Positions(batch if isinstance(batch, Mapping) else {"input_ids": batch})
        parameters = [p for p in model.parameters() if p.requires_grad]
        norms = {}
        for name, value in self._sums(model, positions).items():
            mean = self._term(name).factor * value / max(len(positions), 1)
            slopes = torch.autograd.grad(mean, parameters, retain_graph=True, allow_unused=True)
            squares = [slope.float().square().sum() for slope in slopes if slope is not None]
            norms[name] = float(torch.stack(squares).sum().sqrt())
        return norms

    def _sums(self, model: nn.Module, positions: Positions) -> dict[str, Tensor]:
        """The sum of each term, without its weight."""
        teacher = self._teacher[0]
        terms = {name: self._term(name) for name in self.terms}
        for name, term in terms.items():
            has_logits = "teacher_logits" in positions.batch and not term.needs_states
            if term.needs_teacher and teacher is None and not has_logits:
                logits = "" if term.needs_states else ", or teacher_logits in the batch"
                raise UsageError(f"{name} needs a teacher{logits}")
        student_names = [n for t in terms.values() for n in t.student_modules(model, teacher)]
        target = self._teacher_view(model, terms, positions)
        student = view(model, positions, sorted(set(student_names)), check=not self._is_checked)
        self._is_checked = True
        student, target = self._align(student, target, positions)
        return {name: term.rows(student, target, positions).sum() for name, term in terms.items()}

    def _teacher_view(
        self, model: nn.Module, terms: Mapping[str, Term], positions: Positions
    ) -> View | None:
        teacher = self._teacher[0]
        if not any(term.needs_teacher for term in terms.values()):
            return None
        if teacher is None:
            return View(positions.select(positions.batch["teacher_logits"]))
        names = {n for t in terms.values() for n in t.teacher_modules(model, teacher)}
        with evaluation_mode(teacher), torch.no_grad():
            target = view(teacher, positions, sorted(names), check=not self._is_checked)
        check_finite(target)
        return target

    def _align(
        self, student: View, target: View | None, positions: Positions
    ) -> tuple[View, View | None]:
        """Both with the shared vocabulary."""
        sizes = [side.vocabulary for side in (student, target) if side is not None]
        size = self.vocabulary or sizes[0]
        if self.vocabulary is None and len(set(sizes)) > 1:
            raise UsageError(
                f"the student has {sizes[0]} logits, the teacher {sizes[1]}; when both use one "
                "tokenizer and only padding differs, give its size as vocabulary="
            )
        if size > min(sizes):
            raise UsageError(f"vocabulary={size}, but a model has only {min(sizes)} logits")
        ids = positions.batch["input_ids"]
        if int(ids.max()) >= size:
            raise BadInput(f"the batch has token {int(ids.max())}, the vocabulary ends at {size}")
        if self.vocabulary is None:
            return student, target
        return student.truncate(size), None if target is None else target.truncate(size)

    def _term(self, name: str) -> Term:
        term = self.terms[name]
        assert isinstance(term, Term)
        return term
