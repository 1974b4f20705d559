"""What a control remembers between steps, as buffers, so that it is saved with the model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .advantages import Advantages, Control
from .marks import Marks
from .rewards import Sizes


class ControlState(nn.Module):
    """A control with its state. It computes the advantages of a step with the state that the steps
    before left behind, and then takes the step into the state. recipe: what else must be equal in a
    run that continues, as text.
    """

    def __init__(self, control: Control, sizes: Sizes, recipe: str = "") -> None:
        super().__init__()
        self.control, self.recipe = control, recipe
        self.names = []
        for name, tensor in control.start(sizes).items():
            self.register_buffer(name, tensor)
            self.names.append(name)

    def extra_repr(self) -> str:
        """The settings as text; a resumed run compares them."""
        return f"{self.control!r} {self.recipe}".rstrip()

    def tensors(self) -> dict[str, Tensor]:
        """The state, on the CPU."""
        return {name: self.get_buffer(name).cpu() for name in self.names}

    @torch.no_grad()
    def take(self, marks: Marks) -> Advantages:
        """The advantages of the answers of all ranks, and the next state."""
        state = self.tensors()
        advantages = self.control.advantages(marks, state)
        for name, tensor in self.control.update(state, marks).items():
            self.get_buffer(name).copy_(tensor)
        return advantages
