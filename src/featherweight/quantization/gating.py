"""Decides on held-out sequences, for every layer, whether its output side is used.

One forward and backward pass runs over all held-out sequences, with labels sampled as for the
collection. For each layer, the expected loss (`curvature/gates.py`) of two-sided feedback is
compared with that of one-sided feedback, and the layer uses the one with the smaller loss. The
factors of a layer are loaded and split when its gradient arrives, and freed at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from ..base.events import Event, Listener, silent
from ..models.observe import linear_observer, observe, sites
from .curvature.base import Factors
from .curvature.fisher import LabelSampler
from .curvature.gates import expected_loss
from .pipeline import LayerPlan
from .rounding.base import Rounding
from .transforms.hadamard import Hadamard, rotate_rows, signs

# The seed of the labels. It differs from that of the collection, so that the labels differ.
SEED = 7_919


def judge(
    model: nn.Module,
    held_out: Int[Tensor, "sequences seq"],
    factors: Callable[[str], Factors],
    layer_plans: Sequence[LayerPlan],
    rounding: Rounding,
    transform: Hadamard | None,
    listener: Listener = silent,
    batch: int = 8,
) -> dict[str, dict[str, Any]]:
    """For each layer name {"two_sided": whether two-sided feedback has the smaller loss, "ratio":
    two-sided loss / one-sided loss}. Layers without an output side are left out.

    model: the original model. held_out: token ids of sequences that the factors were not collected
    from; `batch` of them are read at a time. factors: returns the factors of a layer by its name.
    layer_plans, rounding, transform: those of the run. listener: receives an event for each batch.
    """
    plans = {plan.name: plan for plan in layer_plans if plan.in_block}
    losses: dict[str, Tensor] = {}
    num_steps = -(-len(held_out) // batch)

    def visit(name: str, x: Tensor, g: Tensor) -> None:
        weight = model.get_submodule(name).weight.detach()
        pair = _expected_losses(plans[name], weight, x, g, factors(name), rounding, transform)
        if pair is not None:
            losses[name] = (
                losses.get(name, torch.zeros(2, dtype=torch.float64, device="cpu")) + pair.cpu()
            )

    observed_sites = [
        site for kind in ("output", "input") for site in sites(model, kind) if site.name in plans
    ]
    for step in range(num_steps):
        listener(Event("gate", step, num_steps))
        indices = list(range(step * batch, min((step + 1) * batch, len(held_out))))
        observe(
            model,
            held_out[indices],
            observed_sites,
            linear_observer(visit),
            logit_gradient=LabelSampler(SEED, indices),
        )
    listener(Event("gate", num_steps, num_steps))
    return {
        name: {"two_sided": bool(two <= one), "ratio": float(two / one) if one > 0 else 1.0}
        for name, (two, one) in losses.items()
    }


def _expected_losses(
    plan: LayerPlan,
    w: Tensor,
    x: Tensor,
    g: Tensor,
    factors: Factors,
    rounding: Rounding,
    transform: Hadamard | None,
) -> Tensor | None:
    """The sums over the sequences of the two-sided and of the one-sided expected loss; None when
    the factors have no output side.
    """
    x, g, w = x.float(), g.float(), w.float()
    if transform is not None:
        rotation = transform.rotate(w, factors, plan.input_key, plan.name)
        w, factors = rotation.w, rotation.factors  # type: ignore[assignment]
        input_signs = signs(transform.seed, f"in/{plan.input_key}", x.shape[-1], x.device)
        x = rotate_rows(x * input_signs, "full")
        if rotation.output_signs is not None:
            g = rotate_rows(g * rotation.output_signs, transform.output)
    padded_shape = plan.format.padded(plan.shape)
    two_sided = rounding.split(factors, padded_shape, plan.format.tile, plan.name)
    one_sided = rounding.split(factors.one_sided(), padded_shape, plan.format.tile, plan.name)
    if two_sided is None or one_sided is None or two_sided.lower_out is None:
        return None
    x = nn.functional.pad(x, (0, padded_shape[1] - x.shape[-1]))
    g = nn.functional.pad(g, (0, padded_shape[0] - g.shape[-1]))
    row_scale = nn.functional.pad(w.square().mean(1).sqrt(), (0, padded_shape[0] - w.shape[0]))
    return torch.stack(
        [
            expected_loss(x, g, row_scale, split.lower_in, split.lower_out).sum(dtype=torch.float64)
            for split in (two_sided, one_sided)
        ]
    )
