"""What a rule or a control learned, beside the checkpoints of TRL's trainer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import TrainerCallback

from ....base.errors import BadInput

FILE = "featherweight_control.safetensors"


@runtime_checkable
class Stateful(Protocol):
    """What has a state of tensors."""

    def state_dict(self) -> dict[str, Tensor]:
        """The state."""

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> Any:
        """Continue from it."""


class ControlCheckpoints(TrainerCallback):
    """Writes the state into each checkpoint of the trainer, and reads it when the trainer resumes.
    Raises BadInput when the checkpoint has none.
    """

    def __init__(self, stateful: Stateful) -> None:
        self.stateful = stateful

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer after it wrote a checkpoint."""
        if state.is_world_process_zero:
            tensors = {
                name: tensor.contiguous() for name, tensor in self.stateful.state_dict().items()
            }
            save_file(tensors, _folder(args, state) / FILE)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by the trainer; its step is above 0 when it resumes."""
        if state.global_step == 0:
            return
        file = _folder(args, state) / FILE
        if not file.exists():
            raise BadInput(
                f"{file} is not there, so what the control learned is lost; resume from a "
                "checkpoint in the output folder that was written with this callback, or leave the "
                "callback out and call load_state_dict"
            )
        self.stateful.load_state_dict(load_file(file))


def checkpoint_callback(stateful: Stateful) -> ControlCheckpoints:
    """A callback for `trainer.add_callback` that saves what `stateful`, such as a `LengthReward`,
    learned.
    """
    return ControlCheckpoints(stateful)


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
