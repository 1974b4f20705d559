"""Muon: momentum whose matrix is replaced by its nearest orthogonal one (Jordan et al. 2024).

    B <- mu B + G;   U = G + mu B (Nesterov) or B
    O = Newton-Schulz(U) ~ (U U^T)^(-1/2) U
    W <- (1 - lr wd) W - lr s O

Newton-Schulz: X = U / |U|_F, then `num_iterations` times X <- a X + (b A + c A^2) X with A = X X^T
and (a, b, c) = (3.4445, -4.7750, 2.0315). The singular values end between about .7 and 1.2 and not
at 1, which costs nothing and converges in five iterations. A wide matrix is transposed first. It
runs in float32, so the result is the same on every device; a step of an m x n matrix, m < n, costs
2 (2 m^2 n + m^3) operations an iteration.

`scaling` is s: "original" sqrt(max(1, rows / columns)); "match_rms_adamw" 0.2 sqrt(max(rows,
columns)), which gives updates of the size of AdamW's, so that its learning rate and weight decay
can be kept (Moonlight, Liu et al. 2025). The names are those of torch.optim.Muon, which this equals
up to its bfloat16.

For matrices only: vectors, embeddings and heads belong to AdamW. `split` divides the parameters,
and `steps` takes both optimizers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from ..base.errors import UsageError
from . import ranks

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
SCALINGS = ("original", "match_rms_adamw")


class Muon(Optimizer):
    """Raises UsageError for a parameter that is no matrix, or an unknown `scaling`."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        nesterov: bool = True,
        num_iterations: int = 5,
        scaling: str = "original",
    ) -> None:
        if scaling not in SCALINGS:
            raise UsageError(f"scaling={scaling!r} is not one of {', '.join(SCALINGS)}")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "num_iterations": num_iterations,
            "scaling": scaling,
        }
        super().__init__(parameters, defaults)
        for parameter in (p for group in self.param_groups for p in group["params"]):
            if parameter.ndim != 2:
                raise UsageError(
                    f"Muon is for matrices, not for a parameter of shape {tuple(parameter.shape)}; "
                    "give the others to AdamW (training.split divides them)"
                )

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        buffer = state["momentum"].mul_(group["momentum"]).add_(gradient)
        update = gradient.add(buffer, alpha=group["momentum"]) if group["nesterov"] else buffer
        matrix = orthogonalize(ranks.full(update), group["num_iterations"])
        rows, columns = matrix.shape
        factor = max(1.0, rows / columns) ** 0.5
        if group["scaling"] == "match_rms_adamw":
            factor = 0.2 * max(rows, columns) ** 0.5
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(
            ranks.distribute(matrix.to(parameter.dtype), parameter), alpha=-group["lr"] * factor
        )


def orthogonalize(
    matrix: Float[Tensor, "rows columns"], num_iterations: int = 5
) -> Float[Tensor, "rows columns"]:
    """The Newton-Schulz iteration, float32: the singular vectors of `matrix`, and singular values
    near 1.
    """
    a, b, c = COEFFICIENTS
    x = matrix.float()
    if x.shape[0] > x.shape[1]:
        return orthogonalize(x.T, num_iterations).T
    x = x / x.norm().clamp_min(1e-7)
    for _ in range(num_iterations):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x
