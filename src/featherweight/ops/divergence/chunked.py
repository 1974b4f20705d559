"""The same numbers without the logits: a few positions at a time.

The logits of 2,048 positions over 151,936 tokens take 1.2 GB in float32, and a plain loss holds
three tensors of that size. Here the product of hidden states and head weight, the loss and its
gradient are computed for one chunk of positions after the other. The forward pass keeps nothing;
the backward pass computes the chunk again, differentiates the definition in `reference.py`, and
adds up the gradients of hidden states and weight. So the gradient is exact, for one more product
than the plain form (4 instead of 3), and the memory is about seven tensors of a chunk.

A chunk is as many positions as fit into CHUNK_BYTES as float32 logits: 27 positions of 151,936
tokens, 85 of 49,152.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from ...base.errors import UsageError
from .reference import precise

CHUNK_BYTES = 1 << 24

# The definition: (student's logits, *targets) -> a number for each row.
RowLoss = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Projection:
    """Logits that are never held: scale hidden weight^T + bias, then the cap c tanh(. / c).

    hidden: the input of the head. scale, softcap: as Granite's and Gemma's heads have them. Under
    autocast the product has the dtype of autocast, else that of the weight.
    """

    hidden: Float[Tensor, "positions width"]
    weight: Float[Tensor, "vocabulary width"]
    bias: Float[Tensor, " vocabulary"] | None = None
    scale: float = 1.0
    softcap: float | None = None

    def __len__(self) -> int:
        return len(self.hidden)

    def logits(self) -> Float[Tensor, "positions vocabulary"]:
        """All logits at once, float32; for a few positions."""
        return precise(_Source.of(self).cast().rows(slice(None)))


def row_losses(
    rows: RowLoss, student: Tensor | Projection, *targets: Any, chunk: int | None = None
) -> Float[Tensor, " positions"]:
    """`rows(student's logits, *targets)` for every position, differentiable in the student.

    student: logits (positions, vocabulary), or the `Projection` that gives them. targets: whatever
    `rows` takes, one row a position: tensors, or the `Projection` of a teacher; they get no
    gradient. chunk: positions at a time. Raises UsageError when the numbers of positions differ, or
    a target requires a gradient.
    """
    for target in targets:
        if len(target) != len(student):
            raise UsageError(f"{len(student)} positions of the student, {len(target)} of a target")
        if (target.hidden if isinstance(target, Projection) else target).requires_grad:
            raise UsageError("a target requires a gradient; compute the teacher under no_grad")
    source = _Source.of(student)
    target_sources = tuple(_Source.of(target) for target in targets)
    vocabulary = source.hidden.shape[-1] if source.weight is None else len(source.weight)
    chunk = chunk or max(1, CHUNK_BYTES // (4 * vocabulary))
    return _RowLosses.apply(
        rows, source, target_sources, chunk, source.hidden, source.weight, source.bias
    )


@dataclass(frozen=True, eq=False)
class _Source:
    """Gives rows of numbers: of a tensor (weight None), or of the product of a head."""

    hidden: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    scale: float = 1.0
    softcap: float | None = None
    dtype: torch.dtype | None = None

    @staticmethod
    def of(rows: Tensor | Projection) -> _Source:
        """The source of a tensor's rows, or of a projection's."""
        if isinstance(rows, Tensor):
            return _Source(rows)
        device = rows.hidden.device.type
        is_mixed = torch.is_autocast_enabled(device)
        dtype = torch.get_autocast_dtype(device) if is_mixed else rows.weight.dtype
        return _Source(rows.hidden, rows.weight, rows.bias, rows.scale, rows.softcap, dtype)

    def cast(self) -> _Source:
        """The same with the weight in the dtype of the product, once for all chunks."""
        return replace(
            self,
            weight=None if self.weight is None else self.weight.to(self.dtype),
            bias=None if self.bias is None else self.bias.to(self.dtype),
        )

    def product(self, part: slice) -> Tensor:
        """Rows of the tensor, or of hidden weight^T + bias."""
        rows = self.hidden[part]
        return rows if self.weight is None else linear(rows.to(self.dtype), self.weight, self.bias)

    def finish(self, product: Tensor) -> Tensor:
        """The logits of a product."""
        if self.scale != 1:
            product = product * self.scale
        if self.softcap is not None:
            product = self.softcap * torch.tanh(precise(product) / self.softcap)
        return product

    def rows(self, part: slice) -> Tensor:
        """The rows of a target."""
        return self.finish(self.product(part))


class _RowLosses(torch.autograd.Function):
    """The tensors of the student are arguments of their own, so that autograd sees them."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: RowLoss,
        student: _Source,
        targets: tuple[_Source, ...],
        chunk: int,
        hidden: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        ctx.rows, ctx.targets, ctx.chunk = rows, targets, chunk
        ctx.settings = replace(student, hidden=hidden[:0], weight=None, bias=None)
        ctx.save_for_backward(hidden, weight, bias)
        losses = torch.empty(len(hidden), dtype=precise(hidden[:0]).dtype, device=hidden.device)
        student, targets = student.cast(), tuple(target.cast() for target in targets)
        with torch.autocast(hidden.device.type, enabled=False):
            for part in _parts(len(hidden), chunk):
                losses[part] = rows(student.rows(part), *(target.rows(part) for target in targets))
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        student = replace(ctx.settings, hidden=hidden, weight=weight, bias=bias).cast()
        targets = tuple(target.cast() for target in ctx.targets)
        gradients = _Gradients(hidden, weight, bias, ctx.needs_input_grad[4:])
        for part in _parts(len(hidden), ctx.chunk):
            product = student.product(part).detach().requires_grad_()
            with torch.enable_grad():
                losses = ctx.rows(
                    student.finish(product), *(target.rows(part) for target in targets)
                )
            (gradient,) = torch.autograd.grad(losses, product, upstream[part])
            del product, losses
            gradients.add(part, gradient, student)
        return (None, None, None, None, *gradients.tensors())


class _Gradients:
    """The gradients of hidden states, weight and bias, summed over chunks in float32 at least."""

    def __init__(
        self, hidden: Tensor, weight: Tensor | None, bias: Tensor | None, needs: tuple[bool, ...]
    ) -> None:
        self._inputs = (hidden, weight, bias)
        needs_hidden, needs_weight, needs_bias = needs
        self._hidden = torch.zeros_like(hidden) if needs_hidden else None
        self._weight = _zeros(weight) if needs_weight else None
        self._bias = _zeros(bias) if needs_bias else None

    def add(self, part: slice, gradient: Tensor, student: _Source) -> None:
        """Add the gradient of the product at the positions `part`."""
        weight = student.weight
        if self._hidden is not None:
            self._hidden[part] = gradient if weight is None else gradient.to(weight.dtype) @ weight
        if self._weight is not None:
            rows = student.hidden[part].to(student.dtype)
            if self._weight.dtype == rows.dtype == gradient.dtype:
                self._weight.addmm_(gradient.T, rows)
            else:
                self._weight.add_(gradient.to(rows.dtype).T @ rows)
        if self._bias is not None:
            self._bias.add_(gradient.sum(0))

    def tensors(self) -> list[Tensor | None]:
        """The sums in the dtypes of their tensors."""
        sums = (self._hidden, self._weight, self._bias)
        return [
            None if total is None or tensor is None else total.to(tensor.dtype)
            for total, tensor in zip(sums, self._inputs, strict=True)
        ]


def _zeros(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else torch.zeros_like(tensor, dtype=precise(tensor[:0]).dtype)


def _parts(count: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, count)) for start in range(0, count, chunk))
