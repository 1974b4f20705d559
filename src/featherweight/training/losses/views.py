"""What the terms of a loss see of a model: one forward pass, without the product of the head.

A hook takes the input of the head and lets only the last position through, so the model computes
the logits of one position a sequence. Those are compared, at the first batch, with the product
that the loss computes itself: a head that does more than a product (another cap, quantized inputs)
is refused instead of trained wrongly. Hooks are gone when the pass ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ...base.errors import BadInput, UsageError
from ...models import structure
from ...ops.divergence import Projection

# Entries of a batch that are for the loss and not for the model.
LOSS_KEYS = (
    *("loss_mask", "teacher_logits"),
    *("top_ids", "top_log_p", "log_tail", "temperature"),
)
CHECK_TOLERANCE = 0.05  # of the largest logit: bfloat16 products differ by less than 1 %


@dataclass(frozen=True, eq=False)
class Positions:
    """Which predictions of a batch count: position t predicts token t + 1.

    batch: `input_ids` (B, T), and optionally `attention_mask` (B, T) and `loss_mask` (B, T), which
    is true for the tokens that shall be predicted (an answer, not its prompt). The mask is shifted
    here and nowhere else. A prediction counts when its target does, and neither of the two is
    padding; the first token is never a target.
    """

    batch: Mapping[str, Any]
    indices: Int[Tensor, " positions"] = field(init=False)

    def __post_init__(self) -> None:
        ids = self.batch["input_ids"]
        counts = torch.ones_like(ids, dtype=torch.bool)
        if "loss_mask" in self.batch:
            counts = self.batch["loss_mask"].bool()
        padding = ~self.attention_mask
        counts = counts & ~padding & ~padding.roll(1, 1)
        counts = torch.cat([counts[:, 1:], torch.zeros_like(counts[:, :1])], 1)
        object.__setattr__(self, "indices", counts.flatten().nonzero()[:, 0])

    @property
    def attention_mask(self) -> Bool[Tensor, "batch length"]:
        """True where there is a token."""
        ids = self.batch["input_ids"]
        mask = self.batch.get("attention_mask")
        return torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()

    @property
    def targets(self) -> Int[Tensor, " positions"]:
        """The tokens that are predicted."""
        return self.batch["input_ids"].roll(-1, 1).flatten()[self.indices]

    def select(self, rows: Tensor) -> Tensor:
        """Of (B, T, ...), the positions that count: (positions, ...)."""
        return rows.flatten(0, 1)[self.indices]

    def __len__(self) -> int:
        return len(self.indices)


@dataclass(frozen=True, eq=False)
class View:
    """One forward pass. logits: of the positions that count, as rows or as the product that gives
    them. outputs: of modules, by name, (B, T, width).
    """

    logits: Tensor | Projection
    outputs: Mapping[str, Tensor] = field(default_factory=dict)

    def truncate(self, vocabulary: int) -> View:
        """The same with the logits of the first `vocabulary` ids."""
        logits = self.logits
        if isinstance(logits, Tensor):
            return replace(self, logits=logits[:, :vocabulary])
        bias = None if logits.bias is None else logits.bias[:vocabulary]
        return replace(self, logits=replace(logits, weight=logits.weight[:vocabulary], bias=bias))

    @property
    def vocabulary(self) -> int:
        """The number of logits of a position."""
        logits = self.logits
        return logits.shape[1] if isinstance(logits, Tensor) else len(logits.weight)


def view(model: nn.Module, positions: Positions, names: Sequence[str], check: bool = False) -> View:
    """Run `model` on the batch of `positions`, and take its logits and the outputs of the modules
    `names`. check: compare the logits of the last position with the model's own.

    Raises UsageError when the model has no head of dense weights, when a module is never reached,
    or when the check fails.
    """
    name = structure.head(model)
    if name is None:
        raise UsageError(f"{type(model).__name__} has no head (get_output_embeddings)")
    head = model.get_submodule(name)
    inputs = {key: item for key, item in positions.batch.items() if key not in LOSS_KEYS}
    captures: dict[str, Tensor] = {}
    with _capture(model, head, names, captures):
        output = model(**inputs, use_cache=False)
    absent = [name for name in ("", *names) if name not in captures]
    if absent:
        raise UsageError(f"the model's forward pass never reaches {absent[0] or name!r}")
    hidden = captures.pop("")
    projection = _projection(model, name, head, hidden)
    if check:
        last = replace(projection, hidden=hidden[:, -1].detach())
        _check_logits(name, last, output.logits[:, -1].detach())
    return View(replace(projection, hidden=positions.select(hidden)), captures)


@contextmanager
def _capture(
    model: nn.Module, head: nn.Module, names: Sequence[str], captures: dict[str, Tensor]
) -> Iterator[None]:
    def before_head(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        captures[""] = args[0]
        return (args[0][:, -1:], *args[1:])

    def after_module(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            captures[name] = output[0] if isinstance(output, tuple) else output

        return hook

    handles: list[Any] = [head.register_forward_pre_hook(before_head)]
    try:
        for name in names:
            handles.append(model.get_submodule(name).register_forward_hook(after_module(name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _projection(
    model: nn.Module, name: str, head: nn.Module, hidden: Float[Tensor, "batch length width"]
) -> Projection:
    weight, bias = getattr(head, "weight", None), getattr(head, "bias", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2 or weight.shape[1] != hidden.shape[-1]:
        raise UsageError(
            f"the head {name} is a {type(head).__name__} without a dense weight; losses of tokens "
            "need one (dequantize the head)"
        )
    config: Any = getattr(model, "config", None)
    softcap = getattr(config, "final_logit_softcapping", None)
    scale = getattr(config, "logit_scale", None) or 1.0
    scale = scale / (getattr(config, "logits_scaling", None) or 1.0)
    return Projection(hidden.flatten(0, 1), weight, bias, scale, softcap)


@torch.no_grad()
def _check_logits(name: str, projection: Projection, expected: Tensor) -> None:
    actual = projection.logits()
    difference = (actual - expected.float()).abs().max()
    if not difference <= CHECK_TOLERANCE * expected.float().abs().max() + 1e-4:
        if not (actual.isfinite().all() and expected.isfinite().all()):
            return  # the loop reports numbers that are not finite, with their layer
        raise UsageError(
            f"the logits of this model are not the product of {name} (they differ by "
            f"{float(difference):.3g}), so this loss cannot train it"
        )


def check_finite(teacher: View) -> None:
    """Raise BadInput when the teacher's numbers are not finite."""
    logits = teacher.logits
    numbers = logits if isinstance(logits, Tensor) else logits.hidden
    if not numbers.isfinite().all():
        raise BadInput(
            "the teacher gives numbers that are not finite; check its weights, or use float32"
        )
