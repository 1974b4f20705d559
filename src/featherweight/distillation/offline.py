"""`distill`: the student learns from a file of answers. The teacher's forward pass was paid once,
when the answers were written, and every epoch and every student reads them again.

The loss is what the answers allow: the forward KL from full logits, the KL with the mass of all
other tokens from the top k (`TopKKL`, "tail"), and the frequencies of drawn tokens. Top-k answers
with draws have the mass of the others on the drawn ones, so that nothing is left out. Leaving the
mass out ("zero") makes the student over-confident by 1 / (the mass of the k tokens).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..models.answers import Answers, FullAnswer, SparseAnswer
from ..training import ShuffledBatches, Step
from ..training.losses import CrossEntropy, TokenLoss, TopKKL
from .recipe import Recipe, train


def distill(
    student: nn.Module,
    answers: Answers,
    recipe: Recipe | None = None,
    run: RunFolder | None = None,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `student` on `answers`, and yield a `Step` after each step of the optimizer.

    run: where checkpoints go; the same call continues from the newest. Raises UsageError when the
    student has another vocabulary than the answers, or there are fewer windows than one step needs.
    """
    recipe = recipe or Recipe()
    terms = [_term(answers, recipe)]
    if recipe.cross_entropy:
        terms.append(CrossEntropy(weight=recipe.cross_entropy))
    epochs = recipe.epochs(len(answers), "windows")
    return train(
        student,
        AnswerBatches(answers, recipe.batch, epochs, recipe.seed),
        TokenLoss(*terms, vocabulary=answers.header.vocabulary),
        recipe,
        run,
        listener,
    )


class AnswerBatches(ShuffledBatches):
    """Micro-batches of windows with their answers, in another order in every epoch, as `TokenLoss`
    reads them. One batch is in memory at a time.
    """

    def __init__(self, answers: Answers, size: int, epochs: int = 1, seed: int = 0) -> None:
        self.temperature = answers.header.temperature
        super().__init__(answers, size, epochs, seed, self._collate)

    def _collate(self, rows: list[FullAnswer | SparseAnswer]) -> dict[str, Any]:
        batch: dict[str, Any] = {"input_ids": torch.stack([row.tokens for row in rows])}
        if isinstance(rows[0], FullAnswer):
            logits = [row.logits for row in rows if isinstance(row, FullAnswer)]
            return batch | {"teacher_logits": _with_last(torch.stack(logits))}
        sparse = [row.with_tail_on_draws() for row in rows if isinstance(row, SparseAnswer)]
        return batch | {
            "top_ids": _with_last(torch.stack([row.ids for row in sparse])),
            "top_log_p": _with_last(torch.stack([row.log_p for row in sparse])),
            "log_tail": _with_last(torch.stack([row.log_tail for row in sparse])),
            "temperature": self.temperature,
        }


def _with_last(rows: Tensor) -> Tensor:
    """(B, length, ...) -> (B, length + 1, ...): nothing is predicted after the last token, so its
    row is never read.
    """
    return torch.cat([rows, rows[:, -1:]], 1)


def _term(answers: Answers, recipe: Recipe) -> Any:
    kind, temperature = answers.header.kind.name, answers.header.temperature
    if kind == "full":
        return recipe.term("forward")
    if recipe.divergence not in (None, "forward"):
        raise UsageError(
            f"divergence={recipe.divergence}: {kind} answers give the forward KL; "
            "keep full ones for others"
        )
    if recipe.temperature not in (1.0, temperature):
        raise UsageError(
            f"temperature={recipe.temperature}: the answers are probabilities at {temperature}; "
            "leave it out, or answer with --full"
        )
    # With draws all probabilities add up to 1: there is no rest.
    has_draws = getattr(answers.header.kind, "draws", 0) > 0
    return TopKKL("zero" if has_draws else recipe.tail_rule, temperature=temperature)
