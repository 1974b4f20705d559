"""Judge every layer's output side on held-out sequences; where it hurts, the layer falls back to one side.

One forward and backward pass over all held-out sequences together, with labels sampled as for the collection. For each
layer the expected loss (`curvature/gates.py`) under two-sided feedback is compared with that under the one-sided
fallback; the smaller wins. Factors and their splits are made when a layer's gradient arrives and dropped at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..base.events import Event, Listener, silent
from ..models import passes
from .curvature.base import Factors
from .curvature.fisher import LabelSampler
from .curvature.gates import expected_loss
from .pipeline import Task
from .rounding.base import Rounding
from .transforms.hadamard import Hadamard, rotate_rows, signs

# Labels for judging are drawn from other seeds than those for collecting.
SEED = 7_919


def judge(
    model: nn.Module,
    held_out: Int[Tensor, "sequences seq"],
    factors: Callable[[str], Factors],
    todo: Sequence[Task],
    rounding: Rounding,
    transform: Hadamard | None,
    listener: Listener = silent,
    batch: int = 8,
) -> dict[str, dict[str, Any]]:
    """Layer name -> {"two_sided": bool, "ratio": two-sided over one-sided expected loss}; empty when nothing to judge."""
    inside = {task.name: task for task in todo if task.in_block}
    sums: dict[str, Tensor] = {}
    steps = -(-len(held_out) // batch)

    def visit(name: str, module: nn.Linear, x: Tensor, g: Tensor | None) -> None:
        assert g is not None
        if name not in inside:
            return
        found = _losses(inside[name], module.weight.detach(), x, g.detach(), factors(name), rounding, transform)
        if found is not None:
            sums[name] = sums.get(name, torch.zeros(2, dtype=torch.float64)) + found

    for step in range(steps):
        listener(Event("gate", step, steps))
        indices = list(range(step * batch, min((step + 1) * batch, len(held_out))))
        passes.forward_backward(model, held_out[indices], LabelSampler(SEED, indices), visit)
    listener(Event("gate", steps, steps))
    return {
        name: {"two_sided": bool(both <= one), "ratio": float(both / one) if one > 0 else 1.0}
        for name, (both, one) in sums.items()
    }


def _losses(
    task: Task,
    w: Tensor,
    x: Tensor,
    g: Tensor,
    known: Factors,
    rounding: Rounding,
    transform: Hadamard | None,
) -> Tensor | None:
    """Summed expected losses of the sequences, two-sided and one-sided; None when there is no output side."""
    x, g, w = x.float(), g.float(), w.float()
    if transform is not None:
        rotated = transform.rotate(w, known, task.input_key, task.name)
        w, known = rotated.w, rotated.factors  # type: ignore[assignment]
        x = rotate_rows(x * signs(transform.seed, f"in/{task.input_key}", x.shape[-1]), "full")
        if rotated.output_signs is not None:
            g = rotate_rows(g * rotated.output_signs, transform.output)
    padded = task.format.padded(task.shape)
    both = rounding.split(known, padded, task.format.tile, task.name)
    one = rounding.split(known.one_sided(), padded, task.format.tile, task.name)
    if both is None or one is None or both.lower_out is None:
        return None
    x = nn.functional.pad(x, (0, padded[1] - x.shape[-1]))
    g = nn.functional.pad(g, (0, padded[0] - g.shape[-1]))
    scale = nn.functional.pad(w.square().mean(1).sqrt(), (0, padded[0] - w.shape[0]))
    return torch.stack(
        [
            expected_loss(x, g, scale, both.lower_in, both.lower_out).sum(dtype=torch.float64),
            expected_loss(x, g, scale, one.lower_in, one.lower_out).sum(dtype=torch.float64),
        ]
    )
