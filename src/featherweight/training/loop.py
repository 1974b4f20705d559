"""The one training loop: a generator of `Step`. The caller logs, evaluates and stops; there are no
callbacks.

    for step in steps(model, batches, loss, AdamW(groups, lr=1e-3), Cosine(1000), run):
        if step.number % 100 == 0: print(step.loss)

One optimizer step: `accumulate` micro-batches on every rank -> gradients of sums -> one division by
the weight of them all -> clipping -> optimizer -> average. With the same batches the result does
not depend on how they are divided into micro-batches and ranks, except for rounding.

With a run folder the loop survives a kill: the same program continues from the newest checkpoint,
and ends with the same bits as a run that was never killed. A step whose loss or gradient is not
finite changes nothing and is counted; when several come in a row, the state is saved and BadInput
names the layer.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..base.errors import BadInput, UsageError
from ..base.events import Event, Listener, silent
from ..base.run_folder import RunFolder
from . import gradients, nonfinite, ranks, recipe
from .averages import EMA
from .batches import Batches, to_device
from .checkpoint import FOLDER, Checkpoints
from .loss import Loss, LossFunction
from .precision import bf16_pays
from .schedules import Schedule
from .state import StateFile, TrainingState
from .step import Step


def steps(
    model: nn.Module,
    batches: Batches,
    loss: LossFunction,
    optimizer: Optimizer | Sequence[Optimizer],
    schedule: Schedule,
    run: RunFolder | None = None,
    *,
    accumulate: int = 1,
    clip: float | None = 1.0,
    bf16: bool | None = None,
    average: EMA | None = None,
    save_every: int = 100,
    num_checkpoints: int = 2,
    max_nonfinite: int = 5,
    stage: str = FOLDER,
    listener: Listener = silent,
) -> Iterator[Step]:
    """Train `model` for `schedule.steps` steps, and yield a `Step` after each.

    model: on its device, in the mode (train, eval) that it shall have. batches: micro-batches by
    number; step s takes the numbers from s * accumulate * ranks on, one after the other by rank.
    loss: `loss(model, batch) -> Loss`. optimizer: one or several (Muon for matrices, AdamW for the
    others); the rates of their groups are multiplied by the schedule, and are theirs again at the
    end. run: where checkpoints and events go; None on ranks other than 0 (see `open_run`). clip:
    the largest gradient norm; None does not clip. bf16: products in bfloat16; None: where it pays.
    average: is updated after each step and saved. save_every: steps between checkpoints, written
    when the caller asks for the next step; the last state is always written. num_checkpoints: files
    that take turns, at least 2. max_nonfinite: this many steps in a row that are not finite stop
    the run. stage: names the events and the folder of the checkpoints; a run that trains several
    models gives each another.

    Raises, before anything is computed, UsageError for settings that cannot work and for a run that
    was started with others. Raises BadInput for numbers that stay not finite, for an optimizer
    batch without weight, and on a full disk.
    """
    optimizers = [optimizer] if isinstance(optimizer, Optimizer) else list(optimizer)
    settings = _Settings(
        batches,
        schedule,
        accumulate,
        clip,
        bf16,
        save_every,
        num_checkpoints,
        max_nonfinite,
        stage,
        listener,
    )
    _check(settings)
    training = _Training(model, loss, optimizers, average, settings)
    training.open(run)
    return training.run_steps()


@dataclass(frozen=True)
class _Settings:
    """The arguments of `steps` that do not change."""

    batches: Batches
    schedule: Schedule
    accumulate: int
    clip: float | None
    bf16: bool | None
    save_every: int
    num_checkpoints: int
    max_nonfinite: int
    stage: str
    listener: Listener


def _check(settings: _Settings) -> None:
    """Raise UsageError for numbers that cannot work."""
    if min(settings.accumulate, settings.save_every, settings.max_nonfinite) < 1 or (
        settings.num_checkpoints < 2
    ):
        raise UsageError(
            f"accumulate={settings.accumulate}, save_every={settings.save_every} and "
            f"max_nonfinite={settings.max_nonfinite} must be at least 1, "
            f"num_checkpoints={settings.num_checkpoints} at least 2"
        )
    steps, batches = settings.schedule.steps, settings.batches
    num_batches = steps * settings.accumulate * ranks.num_ranks()
    if len(batches) < num_batches:
        raise UsageError(
            f"{steps} steps need {num_batches} micro-batches, there are {len(batches)}; "
            "use fewer steps or more epochs"
        )


class _Training:
    """The state of a run and the parts of the loop."""

    def __init__(
        self,
        model: nn.Module,
        loss: LossFunction,
        optimizers: Sequence[Optimizer],
        average: EMA | None,
        settings: _Settings,
    ) -> None:
        self.model, self.loss, self.optimizers, self.average = model, loss, optimizers, average
        self.settings, self.schedule = settings, settings.schedule
        self.state = TrainingState(model, loss, optimizers, average)
        self.device = next(model.parameters()).device
        self.bf16 = bf16_pays(self.device) if settings.bf16 is None else settings.bf16
        self.groups = [group for one in optimizers for group in one.param_groups]
        self.base_rates = [(g["lr"], g.get("weight_decay")) for g in self.groups]
        self.run: RunFolder | None = None
        self.checkpoints: Checkpoints | None = None
        self.has_run = False

    def recipe(self) -> dict[str, Any]:
        """What must be equal in a run that continues this one."""
        settings = self.settings
        return {
            "schedule": repr(self.schedule),
            "loss": recipe.text_of(self.loss),
            "optimizer": {str(i): recipe.of_optimizer(o) for i, o in enumerate(self.optimizers)},
            "micro_batches": len(settings.batches),
            "accumulate": settings.accumulate,
            "ranks": ranks.num_ranks(),
            "clip": settings.clip,
            "bf16": self.bf16,
            "average": repr(self.average),
            "tensors": {key: recipe.of_module(m) for key, m in self.state.modules.items()},
        }

    def open(self, run: RunFolder | None) -> None:
        """Continue from the newest checkpoint of `run`, when it has one."""
        self.run = run
        path, refusal = None, None
        if run is not None:
            try:
                settings = self.settings
                self.checkpoints = Checkpoints(
                    run, self.recipe(), settings.num_checkpoints, settings.stage
                )
                path = self.checkpoints.newest()
            except UsageError as error:
                refusal = str(error)
        self.has_run, path, refusal = ranks.share((run is not None, path, refusal))
        if refusal is not None:
            raise UsageError(refusal)
        if path is not None:
            self.state.load(StateFile(path))

    def run_steps(self) -> Iterator[Step]:
        """Yield a step after each, and write checkpoints when the next one is asked for."""
        start, first = time.monotonic(), self.state.progress.step
        try:
            while self.state.progress.step < self.schedule.steps:
                step = self._step(start, first)
                self._report(step)
                yield step
                # The caller may have drawn random numbers since the step, so the state that a
                # resumed run continues with is that of now.
                if step.number % self.settings.save_every == 0 or step.number == step.total:
                    self.save()
        finally:
            for group, (lr, weight_decay) in zip(self.groups, self.base_rates, strict=True):
                group["lr"] = lr
                if weight_decay is not None:
                    group["weight_decay"] = weight_decay

    def save(self) -> None:
        """Write a checkpoint; every rank must call this."""
        if self.has_run:
            tensors, numbers = self.state.tensors(), self.state.numbers()
            if self.checkpoints is not None:
                self.checkpoints.write(self.state.progress.step, tensors, numbers)

    def forward(self, batch: Any) -> Loss:
        """The loss of one micro-batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return self.loss(self.model, to_device(batch, self.device))

    def _step(self, start: float, first: int) -> Step:
        step_start, progress = time.monotonic(), self.state.progress
        numbers = self._batch_numbers(progress.step)
        buffers = self._copy_buffers()
        sums = self._accumulate(numbers)
        weight = sums["weight"].item()
        if weight == 0:
            raise BadInput(
                f"nothing counts in step {progress.step + 1}: the weight of its batches is 0 "
                "(all tokens are masked?)"
            )
        slopes = gradients.reduce(self.state.parameters())
        gradient_norm = gradients.norm(slopes).item() / weight
        means = {name: (total / weight).item() for name, total in sums.items()}
        loss = means.pop("total")
        is_finite = bool(torch.tensor([loss, gradient_norm]).isfinite().all())
        lr = self._set_rates(progress.step)
        if is_finite:
            factor = self._clip_factor(gradient_norm)
            gradients.scale(slopes, factor / weight)
            self._update()
        else:
            self._skip(buffers, numbers)
        for module in self.state.modules.values():
            module.zero_grad(set_to_none=True)
        progress.step += 1
        progress.units += weight
        seconds = time.monotonic() - start
        per_step = seconds / (progress.step - first)
        return Step(
            progress.step,
            self.schedule.steps,
            loss,
            {name: mean for name, mean in means.items() if name != "weight"},
            lr,
            gradient_norm,
            progress.units,
            weight / max(time.monotonic() - step_start, 1e-9),
            seconds,
            per_step * (self.schedule.steps - progress.step),
            not is_finite,
            progress.num_skipped,
            self.save,
        )

    def _clip_factor(self, gradient_norm: float) -> float:
        clip = self.settings.clip
        return 1.0 if clip is None else min(1.0, clip / (gradient_norm + 1e-6))

    def _batch_numbers(self, step: int) -> range:
        """The numbers of this rank's micro-batches in the step with index `step`."""
        num_ranks = ranks.num_ranks()
        start = step * self.settings.accumulate * num_ranks + ranks.rank()
        return range(start, start + self.settings.accumulate * num_ranks, num_ranks)

    def _accumulate(self, numbers: range) -> dict[str, Tensor]:
        """Run the micro-batches, and return the sums of loss, parts and weight over all ranks."""
        sums: dict[str, Tensor] = {}
        for number in numbers:
            result = self.forward(self.settings.batches[number])
            result.total.backward()
            terms = {"total": result.total, "weight": result.weight, **result.parts}
            for name, term in terms.items():
                term = torch.as_tensor(term, device=self.device).detach().double()
                sums[name] = sums[name] + term if name in sums else term
        totals = ranks.sum_over_ranks(torch.stack(list(sums.values())))
        return dict(zip(sums, totals, strict=True))

    def _set_rates(self, step: int) -> float:
        """Set the rates of this step, and return the largest learning rate."""
        lr_factor = self.schedule.lr(step)
        for group, (lr, weight_decay) in zip(self.groups, self.base_rates, strict=True):
            group["lr"] = lr * lr_factor
            if weight_decay is not None:
                group["weight_decay"] = weight_decay * self.schedule.weight_decay(step)
        return max(float(group["lr"]) for group in self.groups)

    def _update(self) -> None:
        for optimizer in self.optimizers:
            optimizer.step()
        if self.average is not None:
            self.average.update()
        self.state.progress.num_in_row = 0

    def _skip(self, buffers: list[tuple[Tensor, Tensor]], numbers: range) -> None:
        """Count a step that is not finite, and stop when it was one too many."""
        progress = self.state.progress
        _restore(buffers)
        progress.num_skipped += 1
        progress.num_in_row += 1
        if progress.num_in_row < self.settings.max_nonfinite:
            return
        progress.step += 1
        self.save()
        batches = (to_device(self.settings.batches[number], self.device) for number in numbers)
        cause = nonfinite.name_cause(self.model, self.forward, batches)
        _restore(buffers)
        first = progress.step + 1 - progress.num_in_row
        place = "" if self.run is None else f"; the last good state is kept in {self.run.folder}"
        raise BadInput(
            f"{progress.num_in_row} steps in a row were not finite, from step {first} on: {cause}"
            f"{place}. Try a lower learning rate, a longer warm-up, or bf16=False"
        )

    def _copy_buffers(self) -> list[tuple[Tensor, Tensor]]:
        """Each buffer with a copy: a forward pass that is not finite spoils running statistics."""
        modules = self.state.modules.values()
        return [(b, b.detach().clone()) for module in modules for b in module.buffers()]

    def _report(self, step: Step) -> None:
        message = f"loss {step.loss:.4g}, {step.units_per_second:.4g}/s"
        if step.num_skipped:
            message += f", {step.num_skipped} steps skipped"
        stage = self.settings.stage
        event = Event(
            stage, step.number, step.total, step.seconds, step.eta_seconds, message, step.values()
        )
        if ranks.rank() == 0:
            self.settings.listener(event)
            if self.run is not None:
                self.run.listener(event)


def _restore(buffers: list[tuple[Tensor, Tensor]]) -> None:
    for buffer, copy in buffers:
        buffer.copy_(copy)
