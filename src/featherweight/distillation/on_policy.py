"""On-policy distillation: the student writes, and the teacher says at every token what it would
have written (GKD, Agarwal et al. 2024).

    loss = OnPolicyLoss(teacher, ReverseKL())               # distributions: GKD
    loss = OnPolicyLoss(teacher, PolicyGradientKL())        # drawn tokens: MiniLLM's one-step form

A student that only reads the teacher's text never sees its own mistakes, from which it must recover
when it is used. Whose text is read (`share`) and which divergence is taken (the terms) are
independent choices. No gradient goes through the sampling. Heal a student offline first: the
teacher's advice about nonsense is worth little.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..base.sampling import Sampling
from ..base.seeds import seed_of
from ..data.examples import Example, collate
from ..models.sampling import Rollouts, rollouts
from ..training import Batches, Loss, ShuffledBatches, Step
from ..training.losses import PolicyGradientKL, ReverseKL, Term, TokenLoss
from .recipe import Recipe, train

SAMPLING = Sampling(temperature=1.0, max_tokens=64)


def distill_on_policy(
    student: nn.Module,
    teacher: nn.Module,
    prompts: Sequence[Sequence[int]],
    recipe: Recipe | None = None,
    run: RunFolder | None = None,
    *,
    terms: Sequence[Term] = (),
    examples: Sequence[Example] = (),
    share: float = 1.0,
    sampling: Sampling = SAMPLING,
    vocabulary: int | None = None,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `student` on what it writes after `prompts`, and yield a `Step` after each step of the
    optimizer.

    terms: the divergences (none: `ReverseKL`). examples: answers that others wrote, which take the
    place of the student's in 1 - `share` of the micro-batches. sampling: of the student's answers.
    vocabulary: as in `TokenLoss`. Raises UsageError for settings that cannot work.
    """
    recipe = recipe or Recipe()
    loss = OnPolicyLoss(teacher, *terms, sampling=sampling, vocabulary=vocabulary)
    batches = PromptBatches(prompts, recipe, examples, share)
    return train(student, batches, loss, recipe, run, listener)


class OnPolicyLoss(nn.Module):
    """`loss(model, batch) -> Loss`: samples an answer of `model` to each of `batch["prompts"]` with
    `batch["seed"]`, and compares it with `teacher` at every token of the answers. A batch that has
    `input_ids` is compared as it is.

    terms: the divergences (none: `ReverseKL`). Raises UsageError when a policy gradient is asked
    for tokens that are not drawn from the student's own distribution.
    """

    def __init__(
        self,
        teacher: nn.Module,
        *terms: Term,
        sampling: Sampling = SAMPLING,
        vocabulary: int | None = None,
    ) -> None:
        super().__init__()
        plain_sampling = replace(Sampling(temperature=1.0), max_tokens=sampling.max_tokens)
        if any(isinstance(term, PolicyGradientKL) for term in terms) and sampling != plain_sampling:
            raise UsageError(
                "a policy gradient needs tokens that are drawn at temperature 1 from the whole "
                "distribution; leave the other settings of sampling out, or use ReverseKL"
            )
        self.token_loss = TokenLoss(
            *(terms or (ReverseKL(),)), teacher=teacher, vocabulary=vocabulary
        )
        self.sampling = sampling

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        return f"sampling={self.sampling}"

    def forward(self, model: nn.Module, batch: Mapping[str, Any]) -> Loss:
        """The sums over the tokens of the answers."""
        if "input_ids" in batch:
            return self._compare(model, batch)
        device = next(model.parameters()).device
        # The cache of the sampling has the dtype of the weights, so nothing is cast on the way.
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            samples = rollouts(model, batch["prompts"], sampling=self.sampling, seed=batch["seed"])
        return self._compare(model, read_samples(samples))

    def _compare(self, model: nn.Module, batch: Mapping[str, Any]) -> Loss:
        loss: Loss = self.token_loss(model, batch)
        return loss


def read_samples(samples: Rollouts) -> dict[str, Tensor]:
    """Sampled texts as a batch whose answers count."""
    ends = samples.prompt_lengths + samples.lengths
    places = torch.arange(samples.tokens.shape[1], device=samples.tokens.device)
    return {
        "input_ids": samples.tokens,
        "attention_mask": (places < ends[:, None]).long(),
        "loss_mask": samples.mask,
    }


class PromptBatches(Batches):
    """Micro-batches of prompts with a seed of their own, and in 1 - `share` of the places one of
    `examples`, which place takes which being drawn from the recipe's seed.

    Raises UsageError when there are too few of either.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        recipe: Recipe,
        examples: Sequence[Example] = (),
        share: float = 1.0,
    ) -> None:
        if not 0 <= share <= 1 or (share < 1 and not examples):
            raise UsageError(
                f"share={share}: the student writes a share of the texts between 0 and 1; for less "
                "than 1 give the examples that take the other places"
            )
        self.seed, self.share = recipe.seed, share
        epochs = recipe.epochs(len(prompts), "prompts")
        self.prompts = ShuffledBatches(
            [list(ids) for ids in prompts], recipe.batch, epochs, recipe.seed, list
        )
        self.examples = None
        if share < 1:
            epochs = -(-len(self.prompts) * recipe.batch // len(examples)) + 1
            self.examples = ShuffledBatches(examples, recipe.batch, epochs, recipe.seed, collate)

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, index: int, /) -> dict[str, Any]:
        chance = random.Random(seed_of("share", self.seed, index)).random()
        if self.examples is not None and chance >= self.share:
            batch: dict[str, Any] = self.examples[index % len(self.examples)]
            return batch
        return {"prompts": self.prompts[index], "seed": seed_of("texts", self.seed, index)}
