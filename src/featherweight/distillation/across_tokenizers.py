"""`CrossTokenizerLoss`: a student learns from a teacher that has another tokenizer.

    match = match_tokenizers(teacher_tokenizer, student_tokenizer)
    texts = aligned_windows(match, corpus, length=256)
    loss = CrossTokenizerLoss(teacher, match)
    for step in steps(student, AlignedBatches(texts, size=8, epochs=3), loss, ...): ...

Both models read the same text, each in its own tokens; `group_divergence` says what is compared at
each group of tokens. One forward pass of each; the logits are never held, those of a chunk of
positions have both vocabularies. The gradient is exact, and the student's only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..base.errors import BadInput, UsageError
from ..models import structure
from ..models.structure import evaluation_mode
from ..ops.divergence import Projection, check_share, cross_entropy, row_losses
from ..training.loss import Loss
from ..training.losses.views import Positions, check_finite, view
from .group_divergence import Split, join
from .tokenizer_match import TokenizerMatch


class CrossTokenizerLoss(nn.Module):
    """`loss(model, batch) -> Loss`, batches being those of `AlignedBatches`.

    teacher: run beside the student, in evaluation mode and without a graph; no part of this
    module's state. match: of the two tokenizers. beta: of the Jensen-Shannon divergence of the
    exact part. exact, uld, cross_entropy: weights of the exact part, of the rest, and of -log Q,
    which is the cross-entropy of the student's tokens of a group. The JSD is bounded, so where the
    student gives a text almost nothing its gradient vanishes; some cross-entropy beside it keeps
    the student moving. uld=0 saves the sorting. The unit of the loss is a group.

    Raises UsageError for settings that cannot work and vocabularies larger than a model's logits;
    BadInput for batches whose groups differ and for a teacher whose numbers are not finite.
    """

    def __init__(
        self,
        teacher: nn.Module,
        match: TokenizerMatch,
        *,
        beta: float = 0.5,
        exact: float = 1.0,
        uld: float = 0.1,
        cross_entropy: float = 0.1,
    ) -> None:
        super().__init__()
        self.beta = check_share("beta", beta, "a small share", "a share below it")
        self.weights = {"exact": exact, "uld": uld, "cross_entropy": cross_entropy}
        if min(self.weights.values()) < 0 or not any(self.weights.values()):
            raise UsageError(f"weights {self.weights}: none below 0, and one above it")
        self.match = match
        # A tuple is no submodule: the teacher's weights are not saved, and train() does not reach
        # them.
        self._teacher = (teacher,)
        self._is_checked = False

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        return (
            f"teacher={type(self._teacher[0]).__name__}, match={self.match}, beta={self.beta}, "
            f"weights={self.weights}"
        )

    def forward(self, model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]]) -> Loss:
        """The sums over the groups of one micro-batch."""
        parts = self.rows(model, batch)
        total = sum(
            self.weights[name] * rows.sum() for name, rows in parts.items() if self.weights[name]
        )
        assert isinstance(total, Tensor)
        sums = {name: rows.detach().sum() for name, rows in parts.items()}
        return Loss(total, len(parts["exact"]), sums)

    def rows(
        self, model: nn.Module, batch: Mapping[str, Mapping[str, Tensor]]
    ) -> dict[str, Float[Tensor, " groups"]]:
        """Each part for each group, in order, without its weight."""
        original = self._teacher[0]
        check = not self._is_checked
        with evaluation_mode(original), torch.no_grad():
            teacher = _side(original, batch["teacher"], len(self.match.teacher), "teacher", check)
            log_r_p = teacher.log_continuations()
        student = _side(model, batch["student"], len(self.match.student), "student", check)
        self._is_checked = True
        if not teacher.keys.equal(student.keys):
            raise BadInput("the groups of teacher and student differ; use AlignedBatches")
        split = Split.of(
            self.match.teacher_ids.to(student.keys.device),
            self.match.student_ids.to(student.keys.device),
            teacher.vocabulary,
            student.vocabulary,
            self.beta,
            has_uld=self.weights["uld"] > 0,
        )
        (starts, first_ids), (teacher_starts, teacher_first_ids) = (
            student.starts(),
            teacher.starts(),
        )
        parts = row_losses(split, starts, teacher_starts, first_ids, teacher_first_ids)
        exact, uld, log_text = join(parts, student.log_continuations(), log_r_p, self.beta)
        return {"exact": exact, "uld": uld, "cross_entropy": -log_text}


@dataclass(frozen=True, eq=False)
class _Side:
    """One forward pass. logits and ids: of the tokens that belong to groups, in order. groups: the
    place of each token's group in `keys`, which names the groups of the batch.
    """

    logits: Projection
    ids: Int[Tensor, " tokens"]
    groups: Int[Tensor, " tokens"]
    keys: Int[Tensor, " groups"]

    @property
    def vocabulary(self) -> int:
        """The number of logits."""
        return len(self.logits.weight)

    def starts(self) -> tuple[Projection, Tensor]:
        """The logits before each group, and its first token."""
        is_first = self._is_first()
        return replace(self.logits, hidden=self.logits.hidden[is_first]), self.ids[is_first]

    def log_continuations(self) -> Float[Tensor, " groups"]:
        """The log-probability of the tokens of each group after its first one; 0 without any."""
        is_later = ~self._is_first()
        logits = replace(self.logits, hidden=self.logits.hidden[is_later])
        losses = row_losses(cross_entropy, logits, self.ids[is_later])
        return losses.new_zeros(len(self.keys)).index_add(0, self.groups[is_later], -losses)

    def _is_first(self) -> Tensor:
        return torch.cat([self.groups.new_ones(1), self.groups.diff()])[: len(self.groups)] > 0


def _side(
    model: nn.Module, batch: Mapping[str, Tensor], vocabulary: int, name: str, check: bool
) -> _Side:
    """Run `model` on its side of a batch."""
    ids, groups = batch["input_ids"], batch["groups"]
    is_counted = groups >= 0
    inputs: dict[str, Any] = {"input_ids": ids, "attention_mask": batch["attention_mask"]}
    positions = Positions(inputs | {"loss_mask": is_counted})
    if len(positions) != int(is_counted.sum()):
        raise BadInput("the first token of a text, or padding, is in a group; use AlignedBatches")
    size = getattr(model.get_submodule(structure.embedding(model)), "num_embeddings", vocabulary)
    if int(ids.max()) >= size:
        raise UsageError(
            f"the batch has token {int(ids.max())}, and the {name} has {size}; is this its "
            "tokenizer?"
        )
    outputs = view(model, positions, [], check)
    if name == "teacher":
        check_finite(outputs)
    logits = outputs.truncate(min(outputs.vocabulary, vocabulary)).logits
    assert isinstance(logits, Projection)
    # Rows of a batch follow each other, and so do the numbers of groups in a row.
    rows = torch.arange(len(groups), device=groups.device)[:, None] << 32
    keys, places = torch.unique_consecutive((rows + groups)[is_counted], return_inverse=True)
    return _Side(logits, positions.targets, places, keys)
