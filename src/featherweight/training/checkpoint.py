"""Checkpoints of a run: a few files that take turns, of which each is whole or does not count.

    OUT.partial/work/training/state-0.safetensors, state-1.safetensors, ...

A run that trains several models one after the other has such a folder for each (`stage`).

The oldest file is replaced: written beside, flushed, renamed, and then entered in the journal of
the run with its SHA-256. A kill between any two of these leaves at least one file that agrees with
its entry, and the run continues from the newest such file. On a full disk the others stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..base.errors import UsageError
from ..base.run_folder import RunFolder, differing_keys
from ..models.tensors import write_shard
from . import ranks
from .state import MODEL, NUMBERS, StateFile, stored_tensors

FOLDER = "training"
FINGERPRINT = "training state 1"  # changes with the format


class Checkpoints:
    """The `count` files of a training. recipe: what must be equal in the run that continues; stage:
    the name of the folder.
    """

    def __init__(
        self, run: RunFolder, recipe: Mapping[str, Any], count: int, stage: str = FOLDER
    ) -> None:
        self.run, self.recipe, self.stage = run, recipe, stage
        self.folder = run.work / stage
        self.folder.mkdir(exist_ok=True)
        self._steps = {slot: self._step(slot) for slot in range(count)}

    def newest(self) -> Path | None:
        """The file of the newest state; None for a new run.

        Raises UsageError, naming the keys, when it belongs to another recipe.
        """
        step, slot = max(
            ((step, slot) for slot, step in self._steps.items() if step is not None),
            default=(None, None),
        )
        if step is None or slot is None:
            return None
        record = self._record(slot)
        assert record is not None
        if differences := differing_keys(record["recipe"], self.recipe):
            raise UsageError(
                f"{self.run.folder} was trained with other settings; these differ: "
                f"{'; '.join(differences)}. Use the earlier ones to resume, or another folder"
            )
        return self._file(slot)

    def write(self, step: int, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> None:
        """Replace the oldest file. Raises BadInput when the disk is full."""
        slot = min(self._steps, key=lambda slot: (self._steps[slot] or -1, slot))
        self._steps[slot] = None
        write_shard(self._file(slot), tensors, {NUMBERS: json.dumps(numbers)})
        record = {"step": step, "recipe": self.recipe}
        self.run.finish_unit(self._unit(slot), FINGERPRINT, self._file(slot), record)
        self._steps[slot] = step

    def _step(self, slot: int) -> int | None:
        record = self._record(slot)
        return None if record is None else int(record["step"])

    def _record(self, slot: int) -> dict[str, Any] | None:
        return self.run.done(self._unit(slot), FINGERPRINT)

    def _unit(self, slot: int) -> str:
        return f"{self.stage}/{slot}"

    def _file(self, slot: int) -> Path:
        return self.folder / f"state-{slot}.safetensors"


def checkpoint_files(run: RunFolder, stage: str = FOLDER) -> list[Path]:
    """The files of the states of a training, the oldest first."""
    files = (run.work / stage).glob("state-*.safetensors")
    return sorted(files, key=lambda file: StateFile(file).numbers["progress"]["step"])


@torch.no_grad()
def average_checkpoints(model: nn.Module, files: Sequence[Path]) -> None:
    """Set the model to the mean of the models in `files` (see `checkpoint_files`), one tensor in
    memory at a time.

    Raises UsageError without files, BadInput when they hold another model.
    """
    if not files:
        raise UsageError("no checkpoints to average")
    states = [StateFile(file) for file in files]
    for name, tensor in stored_tensors(model).items():
        numbers = [state.read(MODEL + name) for state in states]
        if not tensor.is_floating_point():
            tensor.copy_(ranks.distribute(numbers[-1], tensor))
            continue
        mean = torch.stack([number.double() for number in numbers]).mean(0)
        tensor.copy_(ranks.distribute(mean.to(tensor.dtype), tensor))
