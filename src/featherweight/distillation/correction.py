"""Teacher correction: the teacher first reads the text that it will answer (Sreenivas et al. 2024,
Minitron in practice).

A teacher that was trained on other text is a poor judge of this one, and its student would learn
the mismatch too. A few hundred steps of cross-entropy at a small rate adapt it. What the student
answers like is then the corrected teacher; the report compares with the original.
"""

from __future__ import annotations

from collections.abc import Iterator

from jaxtyping import Int
from torch import Tensor, nn

from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..training import ShuffledBatches, Step
from ..training.losses import CrossEntropy, TokenLoss
from .recipe import Recipe, train

STAGE = "correct"


def correct(
    teacher: nn.Module,
    tokens: Int[Tensor, "windows positions"],
    recipe: Recipe,
    run: RunFolder | None = None,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `teacher` on the windows `tokens` by cross-entropy; yields a `Step` after each step of
    the optimizer.
    """
    epochs = recipe.epochs(len(tokens), "windows")
    batches = ShuffledBatches(tokens, recipe.batch, epochs, recipe.seed)
    loss = TokenLoss(CrossEntropy())
    return train(teacher, batches, loss, recipe, run, listener, stage=STAGE)
