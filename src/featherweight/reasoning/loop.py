"""Training a policy by reinforcement: sample, mark, shape, learn.

method = METHODS["dr_grpo"](limit=256)
for step in train(model, questions, sampler, marking, ShortARC(), method, recipe):
    print(step.step.number, step.figures["accuracy"], step.figures["length"])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from torch import nn
from torch.optim import AdamW

from ..base.errors import UsageError
from ..base.events import Listener, silent
from ..base.run_folder import RunFolder
from ..base.sampling import Sampling
from ..base.seeds import seed_of
from ..training import Constant, Schedule, Step, parameter_groups, steps
from .advantages import Control
from .control_state import ControlState
from .generations import Generations, Settings
from .marking import Marking
from .methods import Method
from .policy_loss import PolicyLoss
from .questions import Question, num_buckets
from .rewards import Sizes
from .samplers import Sampler

STAGE = "reinforce"


@dataclass(frozen=True)
class Recipe:
    """How the policy learns. lr: of AdamW, constant after `warmup` steps. cap: the largest weight
    of a token that another policy sampled. bf16: as in `training.steps`. Others: as in `Settings`.
    """

    steps: int = 100
    prompts: int = 8
    group: int = 8
    accumulate: int = 1
    updates: int = 1
    lr: float = 1e-6
    warmup: int = 0
    weight_decay: float = 0.0
    temperature: float = 1.0
    max_tokens: int = 256
    clip: float = 1.0
    cap: float = 3.0
    save_every: int = 20
    seed: int = 0
    bf16: bool | None = None

    def settings(self, mask_cut: bool) -> Settings:
        """What `Generations` needs. Raises UsageError for numbers that cannot work."""
        if self.save_every % self.updates:
            raise UsageError(
                f"save_every={self.save_every} is no multiple of updates={self.updates}; a run "
                "continues only from where a generation starts"
            )
        return Settings(
            self.prompts,
            self.group,
            self.accumulate,
            self.updates,
            self.steps,
            Sampling(max_tokens=self.max_tokens, temperature=self.temperature),
            mask_cut,
            self.seed,
            self.bf16,
        )

    def schedule(self) -> Schedule:
        """Of the learning rate."""
        return Constant(self.steps, self.warmup)


@dataclass(frozen=True)
class PolicyStep:
    """step: of the optimizer. figures: of the answers it learned from (see `figures`). buckets:
    accuracy and length by difficulty.
    """

    step: Step
    figures: dict[str, float]
    buckets: list[dict[str, float]] = field(default_factory=list)


def train(
    model: nn.Module,
    questions: Sequence[Question],
    sampler: Sampler,
    marking: Marking,
    control: Control,
    method: Method,
    recipe: Recipe,
    run: RunFolder | None = None,
    *,
    reference: nn.Module | None = None,
    listener: Listener = silent,
) -> Iterator[PolicyStep]:
    """Train `model`, and yield a `PolicyStep` after each step of the optimizer.

    control: gives the advantages. method: surrogate, aggregate and KL of the loss; its scale and
    `drop` are the control's affair. reference: for a KL; it is not trained. run: a killed run
    continues in it, bit for bit. Raises UsageError for settings that cannot work.
    """
    if method.kl and reference is None:
        raise UsageError(f"kl={method.kl} needs a reference model")
    sizes = Sizes(len(questions), num_buckets(questions))
    settings = recipe.settings(method.mask_truncated)
    state = ControlState(control, sizes, _text_of(settings, questions, sampler, marking))
    loss = PolicyLoss(
        method.surrogate,
        method.aggregate,
        kl=method.kl,
        temperature=recipe.temperature,
        cap=recipe.cap,
        state=state,
    )
    batches = Generations(
        model,
        questions,
        sampler,
        marking,
        state,
        settings,
        reference if method.kl else None,
    )
    model.train()
    groups = parameter_groups(model, weight_decay=recipe.weight_decay)
    for step in steps(
        model,
        batches,
        loss,
        AdamW(groups, lr=recipe.lr, betas=(0.9, 0.95)),
        recipe.schedule(),
        run,
        accumulate=recipe.accumulate,
        clip=recipe.clip,
        bf16=recipe.bf16,
        save_every=recipe.save_every,
        stage=STAGE,
        listener=listener,
    ):
        yield PolicyStep(step, batches.figures, batches.buckets)


def _text_of(
    settings: Settings, questions: Sequence[Question], sampler: Sampler, marking: Marking
) -> str:
    """What the samples and marks of a run depend on, besides its control."""
    prompts = seed_of(*((question.ids, question.bucket) for question in questions))
    return (
        f"{settings}, {len(questions)} questions {prompts:08x}, {type(sampler).__name__}, "
        f"graded by {type(marking.grader.task).__name__}, {marking.cost}, "
        f"think_end={marking.think_end}"
    )
