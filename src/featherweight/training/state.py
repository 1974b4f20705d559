"""The state of a run as tensors and plain numbers: model, optimizers, loss, average, random
generators, and how far it came. Nothing in it is pickled.

The names of tensors: `model/<name>`, `loss/<name>`, `average/<name>`, and
`optimizer/<model or loss>/<name>/<key>` for what an optimizer keeps of a parameter. Everything else
is one JSON object. Tensors that are spread over ranks are gathered, so the file of two ranks equals
that of one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.optim import Optimizer

from ..base.errors import BadInput, UsageError
from . import random_state, ranks
from .averages import EMA

NUMBERS = "numbers"  # the key of the JSON text in the metadata of a file
MODEL = "model/"


@dataclass
class Progress:
    """How far a run came.

    step: optimizer steps, with those that were skipped. units: the weight of all batches.
    num_skipped: steps that were not finite; num_in_row: of them, those since the last finite one.
    """

    step: int = 0
    units: float = 0.0
    num_skipped: int = 0
    num_in_row: int = 0


class TrainingState:
    """Everything that must be equal for a run to continue bit for bit.

    Raises UsageError when an optimizer holds a parameter of neither the model nor the loss.
    """

    def __init__(
        self, model: nn.Module, loss: Any, optimizers: Sequence[Optimizer], average: EMA | None
    ) -> None:
        self.modules = {"model": model}
        if isinstance(loss, nn.Module):
            self.modules["loss"] = loss
        self.optimizers, self.average, self.progress = optimizers, average, Progress()
        self.names = {
            id(parameter): f"{key}/{name}"
            for key, module in self.modules.items()
            for name, parameter in module.named_parameters()
        }
        for parameter in self.parameters():
            if id(parameter) not in self.names:
                raise UsageError(
                    f"the optimizer holds a parameter of shape {tuple(parameter.shape)} that is in "
                    "neither the model nor the loss; make the optimizer after the model's last "
                    "change (shard, added layers)"
                )

    def parameters(self) -> list[nn.Parameter]:
        """The parameters of all optimizers."""
        groups = (group for optimizer in self.optimizers for group in optimizer.param_groups)
        return [parameter for group in groups for parameter in group["params"]]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, gathered; every rank must call this."""
        tensors = {
            f"{key}/{name}": ranks.full(tensor.detach())
            for key, module in self.modules.items()
            for name, tensor in stored_tensors(module).items()
        }
        for name, key, content in self._optimizer_entries():
            if isinstance(content, Tensor):
                tensors[f"optimizer/{name}/{key}"] = ranks.full(content)
        if self.average is not None:
            for name, tensor in self.average.averages.items():
                tensors[f"average/{name}"] = ranks.full(tensor)
        return tensors

    def numbers(self) -> dict[str, Any]:
        """Everything else, as data for JSON; every rank must call this."""
        entries: dict[str, dict[str, Any]] = {}
        for name, key, content in self._optimizer_entries():
            if not isinstance(content, Tensor):
                entries.setdefault(name, {})[key] = content
        return {
            "progress": asdict(self.progress),
            "optimizer": entries,
            "random": ranks.gather(random_state.capture()),
            "updates": 0 if self.average is None else self.average.num_updates,
        }

    @torch.no_grad()
    def load(self, file: StateFile) -> None:
        """Set everything to what `file` holds. Raises BadInput when a tensor is missing."""
        for key, module in self.modules.items():
            for name, tensor in stored_tensors(module).items():
                tensor.copy_(ranks.distribute(file.read(f"{key}/{name}"), tensor))
        self._load_optimizers(file)
        if self.average is not None:
            self.average.num_updates = file.numbers["updates"]
            for name, tensor in self.average.averages.items():
                tensor.copy_(ranks.distribute(file.read(f"average/{name}"), tensor))
        self.progress = Progress(**file.numbers["progress"])
        random_state.restore(file.numbers["random"][ranks.rank()])

    def _load_optimizers(self, file: StateFile) -> None:
        parameters = {self.names[id(parameter)]: parameter for parameter in self.parameters()}
        entries: dict[str, dict[str, Any]] = {
            name: dict(content) for name, content in file.numbers["optimizer"].items()
        }
        for tensor_name in file.names():
            if tensor_name.startswith("optimizer/"):
                name, _, key = tensor_name.removeprefix("optimizer/").rpartition("/")
                numbers = file.read(tensor_name)
                if key != "step":
                    like = parameters[name]
                    is_alike = numbers.shape == like.shape
                    numbers = (
                        ranks.distribute(numbers, like) if is_alike else numbers.to(like.device)
                    )
                entries.setdefault(name, {})[key] = numbers
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    name = self.names[id(parameter)]
                    if name not in entries:
                        continue
                    # torch keeps the step of fused optimizers beside the parameter.
                    if group.get("fused") or group.get("capturable"):
                        entries[name]["step"] = entries[name]["step"].to(parameter.device)
                    optimizer.state[parameter] = entries[name]

    def _optimizer_entries(self) -> list[tuple[str, str, Any]]:
        """Name of the parameter, key and content of all that the optimizers keep."""
        return [
            (self.names[id(parameter)], key, content)
            for optimizer in self.optimizers
            for parameter, contents in optimizer.state.items()
            for key, content in contents.items()
        ]


class StateFile:
    """A saved state, read one tensor at a time. Raises BadInput for a file that holds none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = safe_open(str(path), framework="pt")
            self.numbers: dict[str, Any] = json.loads(self._file.metadata()[NUMBERS])
        except Exception as error:
            raise BadInput(f"{path} is no readable training state ({error})") from error

    def names(self) -> list[str]:
        """The names of all tensors."""
        return list(self._file.keys())

    def read(self, name: str) -> Tensor:
        """One tensor, on the CPU."""
        if name not in self._file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            raise BadInput(f"{self.path} holds no {name}; it belongs to another model or optimizer")
        return self._file.get_tensor(name)


def stored_tensors(module: nn.Module) -> Mapping[str, Tensor]:
    """Parameters and persistent buffers by name; one that is shared (a tied head) is there once.

    Raises UsageError for other state, which could not be saved.
    """
    persistent: dict[str, Any] = module.state_dict(keep_vars=True)
    for name, content in persistent.items():
        if not isinstance(content, Tensor):
            raise UsageError(f"{name} is state that is no tensor, so it cannot be saved")
    buffers = {name: b for name, b in module.named_buffers() if name in persistent}
    return {**dict(module.named_parameters()), **buffers}
