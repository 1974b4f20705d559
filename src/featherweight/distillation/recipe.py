"""How a student learns: what offline, on-policy and sequence-level distillation have in common."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.optim import AdamW, Optimizer

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..models import structure
from ..training import Batches, Cosine, LossFunction, Muon, Step, parameter_groups, split, steps
from ..training.losses import (
    Distillation,
    ForwardKL,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)

OPTIMIZERS = ("adamw", "muon")
DIVERGENCES: dict[str, type[Distillation]] = {
    "forward": ForwardKL,
    "reverse": ReverseKL,
    "skew": SkewKL,
    "skew-reverse": SkewReverseKL,
    "jensen-shannon": JensenShannon,
    "total-variation": TotalVariation,
}
BETAS = (0.9, 0.95)
STAGE = "distill"


@dataclass(frozen=True)
class Recipe:
    """How a student learns.

    steps: of the optimizer. batch: windows or prompts of a micro-batch; accumulate: micro-batches
    of a step. lr: the largest rate of a cosine with `warmup` steps. optimizer: "adamw", or "muon"
    for the matrices of the blocks, with updates of the size of AdamW's, and AdamW for all else.
    divergence: one of `DIVERGENCES` (None: forward for the text of others, reverse for the
    student's own).
    tail_rule: for the tokens that top-k answers do not name (`ops.divergence.TAIL_RULES`).
    cross_entropy: weight of the text itself beside the answers. temperature: of the KL from full
    answers; others have that of their header. Raises UsageError for an unknown optimizer or
    divergence.
    """

    steps: int = 500
    batch: int = 4
    accumulate: int = 1
    lr: float = 3e-4
    warmup: int = 20
    weight_decay: float = 0.01
    optimizer: str = "adamw"
    divergence: str | None = None
    tail_rule: str = "tail"
    cross_entropy: float = 0.0
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise UsageError(f"optimizer={self.optimizer!r}: choose {' or '.join(OPTIMIZERS)}")
        if self.divergence not in (None, *DIVERGENCES):
            raise UsageError(f"divergence={self.divergence!r}: choose {', '.join(DIVERGENCES)}")

    def term(self, default: str) -> Distillation:
        """The divergence, `default` where the recipe names none."""
        return DIVERGENCES[self.divergence or default](temperature=self.temperature)

    @property
    def examples(self) -> int:
        """Windows or prompts of a step of the optimizer."""
        return self.batch * self.accumulate

    def epochs(self, count: int, noun: str) -> int:
        """How often `count` examples are read. Raises UsageError when one step needs more."""
        if count < self.examples:
            raise UsageError(
                f"a step needs {self.examples} {noun}, and there are {count}; use smaller batches, "
                "or more text"
            )
        return 1 + self.steps * self.accumulate // (count // self.batch)

    def optimizers(self, student: nn.Module) -> list[Optimizer]:
        """The optimizers of a student's trainable parameters."""
        if self.optimizer == "adamw":
            groups = parameter_groups(student, weight_decay=self.weight_decay)
            return [AdamW(groups, lr=self.lr, betas=BETAS)]
        prefixes = tuple(f"{name}." for name, _ in structure.blocks(student))
        matrices, other_parameters = split(
            student, is_first=lambda name, p: p.ndim == 2 and name.startswith(prefixes)
        )
        return [
            Muon(matrices, self.lr, self.weight_decay, scaling="match_rms_adamw"),
            AdamW(other_parameters, lr=self.lr, betas=BETAS, weight_decay=0.0),
        ]


def train(
    student: nn.Module,
    batches: Batches,
    loss: LossFunction,
    recipe: Recipe,
    run: RunFolder | None,
    listener: Listener = silent,
    *,
    stage: str = STAGE,
) -> Iterator[Step]:
    """`training.steps` with the settings of a recipe."""
    student.train()
    return steps(
        student,
        batches,
        loss,
        recipe.optimizers(student),
        Cosine(recipe.steps, min(recipe.warmup, recipe.steps)),
        run,
        accumulate=recipe.accumulate,
        save_every=max(1, min(100, recipe.steps // 10)),
        stage=stage,
        listener=listener,
    )
