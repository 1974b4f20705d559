"""Rounds the inputs of compressed layers as the native engine does, to compare the two engines."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from ..quantization.layers import CompressedLinear, TiedHead

# Steps from 0 to the largest magnitude of a row, for activations of one and of two planes.
ONE_PLANE_STEPS, TWO_PLANE_STEPS = 127, 127 * 128


def round_activations(x: Tensor, steps: int) -> Tensor:
    """Each row of `x` (..., width) rounded to multiples of its largest magnitude / `steps`, half to
    even; a row of zeros stays as it is.
    """
    top = x.abs().amax(-1, keepdim=True)
    return torch.where(top > 0, (x * (steps / top)).round() * (top / steps), x)


class _RoundingRotation:
    """Rotates the inputs of a layer and rounds them; it takes the place of the layer's `memo`."""

    def __init__(self, rotation: Any) -> None:
        self.rotation = rotation

    def __call__(self, x: Tensor, key: bytes, signs: Tensor) -> Tensor:
        return round_activations(self.rotation(x, key, signs), ONE_PLANE_STEPS)


def round_inputs(model: nn.Module) -> Callable[[], None]:
    """Round the inputs of compressed layers from now on; returns the function that undoes it."""
    undo = ExitStack()
    for module in model.modules():
        if isinstance(module, TiedHead):
            table: Any = module.embedding
            table.as_stored = _with_rounding(
                table.as_stored, ONE_PLANE_STEPS if table.input_rotation else TWO_PLANE_STEPS
            )
            undo.callback(delattr, table, "as_stored")
        elif isinstance(module, CompressedLinear) and module.input_rotation:
            undo.callback(setattr, module, "memo", module.memo)
            module.memo = _RoundingRotation(module.memo)  # type: ignore[assignment]
        elif isinstance(module, CompressedLinear):
            hook = module.register_forward_pre_hook(
                lambda module, args: (round_activations(args[0], TWO_PLANE_STEPS), *args[1:])
            )
            undo.callback(hook.remove)
    return undo.close


def _with_rounding(function: Callable[[Tensor], Tensor], steps: int) -> Callable[[Tensor], Tensor]:
    return lambda x: round_activations(function(x), steps)
