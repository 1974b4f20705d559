"""`Generations`: the micro-batches of reinforcement learning. They are sampled when the training
loop asks for them, with the weights that the model has then.

A *generation* is what is sampled and marked at once: the answers for `updates` steps of the
optimizer on all ranks. Each rank samples its own questions; marks are gathered, so that every rank
computes the advantages of all answers, and keeps those of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import BadInput, UsageError
from ..base.sampling import Sampling
from ..base.seeds import seed_of
from ..models.sampling import Rollouts
from ..models.structure import evaluation_mode
from ..training import Batches, ShuffledBatches, ranks
from ..training.precision import bf16_pays
from .advantages import Advantages
from .control_state import ControlState
from .figures import by_bucket, figures
from .logprobs import stored_logprobs
from .marking import Marking
from .marks import TENSORS, Marks
from .questions import Question, prompt_fault
from .samplers import Sampler


@dataclass(frozen=True)
class Settings:
    """prompts: questions of a micro-batch; group: answers to each; accumulate: micro-batches of a
    step of the optimizer on one rank; updates: steps that learn from one generation; steps: of the
    optimizer in all. sampling: its `max_tokens` is the longest answer. mask_cut: leave answers
    that were cut out of the loss (they count as wrong in any case). seed: of the order of the
    questions and of the samples. bf16: as in `training.steps`, for the log-probabilities that are
    computed before the first update.
    """

    prompts: int = 8
    group: int = 8
    accumulate: int = 1
    updates: int = 1
    steps: int = 100
    sampling: Sampling = field(default_factory=Sampling)
    mask_cut: bool = False
    seed: int = 0
    bf16: bool | None = None

    def __post_init__(self) -> None:
        if min(self.prompts, self.accumulate, self.updates, self.steps) < 1 or self.group < 2:
            raise UsageError(
                f"prompts={self.prompts}, accumulate={self.accumulate}, updates={self.updates} and "
                f"steps={self.steps} are at least 1, group={self.group} at least 2: an advantage "
                "compares the answers to one question"
            )
        s = self.sampling
        if s.temperature <= 0 or s.top_k or s.top_p < 1 or s.min_p or s.repetition_penalty != 1:
            raise UsageError(
                "training samples at a temperature above 0 from the whole distribution, of which "
                "alone the log-probabilities are known; leave the other settings of sampling out"
            )


class Generations(Batches):
    """Micro-batches by number, as `training.steps` asks for them in turn.

    model: the policy. reference: the model that a KL is measured from. A step of the optimizer in
    which no answer counts, as when every group is left out, has all advantages 0 and no loss.
    Raises UsageError when the questions are too few for a step, a prompt is empty or leaves no room
    in the model's context, or `marking` has another limit than the sampling; BadInput, while it
    samples, when no answer of a generation could be graded.
    """

    def __init__(
        self,
        model: nn.Module,
        questions: Sequence[Question],
        sampler: Sampler,
        marking: Marking,
        state: ControlState,
        settings: Settings,
        reference: nn.Module | None = None,
    ) -> None:
        self.model, self.questions, self.sampler = model, questions, sampler
        self.marking, self.state, self.settings = marking, state, settings
        self.reference = reference
        num_needed = settings.prompts * settings.accumulate * ranks.num_ranks()
        if len(questions) < num_needed:
            raise UsageError(f"a step needs {num_needed} questions, and there are {len(questions)}")
        if marking.limit != settings.sampling.max_tokens:
            raise UsageError(
                f"answers have up to {settings.sampling.max_tokens} tokens, and are marked with a "
                f"limit of {marking.limit}; the two should be equal"
            )
        _check_prompts(model, questions, settings.sampling.max_tokens)
        count = settings.steps * settings.accumulate * ranks.num_ranks()
        epochs = 1 + count // max(len(questions) // settings.prompts, 1)
        self.order = ShuffledBatches(
            range(len(questions)), settings.prompts, epochs, settings.seed, list
        )
        self._count, self._number = count, -1
        self._batches: list[dict[str, Tensor]] = []
        self.figures: dict[str, float] = {}
        self.buckets: list[dict[str, float]] = []

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        if not 0 <= number < self._count:
            raise IndexError(number)
        span = self.settings.accumulate * self.settings.updates
        generation, place = divmod(number // ranks.num_ranks(), span)
        if generation != self._number:
            self._batches = self._sample(generation, span)
            self._number = generation
        return self._batches[place]

    def _sample(self, generation: int, span: int) -> list[dict[str, Tensor]]:
        """The micro-batches of this rank in one generation."""
        start, settings = time.monotonic(), self.settings
        first = generation * span * ranks.num_ranks() + ranks.rank()
        numbers = range(
            first, min(self._count, first + span * ranks.num_ranks()), ranks.num_ranks()
        )
        parts = [self.order[number] for number in numbers]
        indices = [index for part in parts for index in part]
        questions = [self.questions[index] for index in indices]
        self.sampler.update_weights(self.model)
        seed = seed_of(settings.seed, "generation", generation)
        texts = self.sampler.generate(
            [q.ids for q in questions], settings.group, settings.sampling, seed
        )
        sample_end = time.monotonic()
        marks = self.marking(texts, questions, generation * settings.updates)
        # Groups are numbered by question, the same on all ranks.
        marks = replace(marks, group=torch.tensor(indices)[marks.group])
        everyone, place = _gather(marks)
        if not bool(everyone.has_mark.any()):
            raise BadInput(
                f"none of the {len(everyone)} answers of this step could be graded, so nothing can "
                "be learned from them; grade one answer by hand to see what is wrong"
            )
        advantages = self.state.take(everyone)
        self.figures = figures(everyone, advantages) | {
            "sample_seconds": sample_end - start,
            "mark_seconds": time.monotonic() - sample_end,
        }
        self.buckets = by_bucket(everyone)
        advantages = self._take_part(everyone, advantages, len(parts) // settings.accumulate)
        own_numbers, counts = advantages.numbers[place], advantages.counts[place]
        return [
            self._batch(texts, own_numbers, counts, rows)
            for rows in _divide(texts, len(parts) // settings.accumulate, settings.accumulate)
        ]

    def _take_part(self, everyone: Marks, advantages: Advantages, updates: int) -> Advantages:
        """The advantages with the answers that take part in the loss. Where none of a step does,
        all do with advantage 0: the loop divides by their number, on every rank.
        """
        counts = advantages.counts
        if self.settings.mask_cut:
            counts = counts & ~everyone.is_cut
        steps = counts.view(ranks.num_ranks(), updates, -1)
        is_empty = ~steps.any(2).any(0)
        is_returned = is_empty[None, :, None].expand_as(steps).flatten()
        numbers = advantages.numbers.masked_fill(is_returned, 0.0)
        return replace(advantages, numbers=numbers, counts=counts | is_returned)

    def _batch(
        self, texts: Rollouts, numbers: Tensor, counts: Tensor, rows: Tensor
    ) -> dict[str, Tensor]:
        """One micro-batch."""
        device, rows = next(self.model.parameters()).device, rows.to(texts.tokens.device)
        ends = (texts.prompt_lengths + texts.lengths)[rows]
        width = int(ends.max())
        mask = texts.mask[rows, :width]
        places = torch.arange(width, device=texts.tokens.device)
        batch: dict[str, Any] = {
            "input_ids": texts.tokens[rows, :width],
            "attention_mask": (places < ends[:, None]).long(),
            "loss_mask": mask & counts.to(rows.device)[rows, None],
            "advantages": numbers.to(rows.device)[rows].float(),
        }
        if not self.sampler.is_policy:
            batch["behaviour_logprobs"] = texts.logprobs[rows, :width]
        batch = {name: tensor.to(device) for name, tensor in batch.items()}
        if not self.sampler.is_policy or self.settings.updates > 1:
            batch["old_logprobs"] = self._logprobs(self.model, batch)
        if self.reference is not None:
            batch["reference_logprobs"] = self._logprobs(self.reference, batch)
        return batch

    def _logprobs(self, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
        """With the products of the training loop; with others the first ratio would not be 1."""
        device, bf16 = batch["input_ids"].device, self.settings.bf16
        is_bf16 = bf16_pays(device) if bf16 is None else bf16
        with (
            evaluation_mode(model),
            torch.autocast(device.type, torch.bfloat16, enabled=is_bf16),
        ):
            return stored_logprobs(model, batch, self.settings.sampling.temperature)


def _divide(texts: Rollouts, updates: int, accumulate: int) -> list[Tensor]:
    """The rows of each micro-batch. Where a step of the optimizer has several, its answers are
    sorted by length, since padding costs as much as tokens; the loop's mean does not depend on the
    order.
    """
    ends = (texts.prompt_lengths + texts.lengths).cpu()
    micro_batches: list[Tensor] = []
    for step in torch.arange(len(ends)).chunk(updates):
        order = ends[step].argsort(stable=True) if accumulate > 1 else torch.arange(len(step))
        micro_batches += step[order].chunk(accumulate)
    return micro_batches


def _check_prompts(model: nn.Module, questions: Sequence[Question], max_tokens: int) -> None:
    config: Any = getattr(model, "config", None)
    context = getattr(config, "max_position_embeddings", None)
    for index, question in enumerate(questions):
        if fault := prompt_fault(index, question.ids, context, max_tokens):
            raise UsageError(fault)


def _gather(marks: Marks) -> tuple[Marks, slice]:
    """The marks of all ranks, and which of them are this rank's."""
    parts = ranks.gather({name: getattr(marks, name) for name in TENSORS})
    sizes = [len(part["correct"]) for part in parts]
    start = sum(sizes[: ranks.rank()])
    tensors: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in TENSORS}
    return replace(marks, **tensors), slice(start, start + sizes[ranks.rank()])
