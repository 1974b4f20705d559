"""The same numbers without the logits: a few positions at a time.

The logits of 2,048 positions over 151,936 tokens take 1.2 GB in float32, and a plain loss holds
three tensors of that size. Here the product of hidden states and head weight, the loss and its
gradient are computed for one chunk of positions after the other. The forward pass keeps nothing;
the backward pass computes the chunk again, differentiates the definition in `reference.py`, and
adds up the gradients of hidden states and weight. So the gradient is exact, for one more product
than the plain form (4 instead of 3).

The logits of a chunk, those of a teacher's projection included, take CHUNK_BYTES as float32: 112
positions of 151,936 tokens, 348 of 49,152, half with a teacher. A definition makes about seven
tensors of its size, so it gets one of 32 parts of a chunk at a time, whose gradient replaces its
logits. Memory: CHUNK_BYTES, and less than as much again.

Products of so few rows run at a third of the speed of large ones on a CPU; where memory allows,
give a larger `chunk`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import linear

from ...base.errors import UsageError
from .reference import precise

# glibc gives blocks of more than 32 MB back to the system at once; smaller ones fragment its heap.
# GPUs need larger chunks, because they start a kernel for every operation on every part.
CHUNK_BYTES, GPU_CHUNK_BYTES = 68_500_000, 512_000_000
PARTS = 32  # of a chunk, for a definition

# The definition: (student's logits, *targets) -> a number for each row, or several of them.
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
) -> Float[Tensor, " positions *numbers"]:
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
    vocabularies = source.hidden.shape[-1] if source.weight is None else len(source.weight)
    vocabularies += sum(len(t.weight) for t in targets if isinstance(t, Projection))
    chunk_bytes = GPU_CHUNK_BYTES if source.hidden.is_cuda else CHUNK_BYTES
    chunk = chunk or max(1, chunk_bytes // (4 * vocabularies))
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
        student, targets = student.cast(), tuple(target.cast() for target in targets)
        with torch.autocast(hidden.device.type, enabled=False):
            # Without positions one empty chunk gives the shape.
            return torch.cat(
                [
                    _chunk_losses(rows, student, targets, part)
                    for part in _parts(len(hidden), chunk) or [slice(0, 0)]
                ]
            )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        student = replace(ctx.settings, hidden=hidden, weight=weight, bias=bias).cast()
        targets = tuple(target.cast() for target in ctx.targets)
        gradients = _Gradients(hidden, weight, bias, ctx.needs_input_grad[4:])
        for part in _parts(len(hidden), ctx.chunk):
            gradients.add(
                part, _chunk_gradient(ctx.rows, student, targets, part, upstream[part]), student
            )
        return (None, None, None, None, *gradients.tensors())


# The tensors of a chunk end with the call, before those of the next one are made.
def _chunk_losses(
    rows: RowLoss, student: _Source, targets: tuple[_Source, ...], part: slice
) -> Tensor:
    """The losses of one chunk."""
    product = student.product(part)
    contents = [target.rows(part) for target in targets]
    losses = [
        rows(student.finish(product[inner]), *(content[inner] for content in contents))
        for inner in _parts(len(product), -(-len(product) // PARTS)) or [slice(0, 0)]
    ]
    return torch.cat(losses)


def _chunk_gradient(
    rows: RowLoss, student: _Source, targets: tuple[_Source, ...], part: slice, upstream: Tensor
) -> Tensor:
    """The gradient of the product of one chunk."""
    product = student.product(part)
    # Logits that the caller holds must stay; those of a product make room for their gradient.
    gradient = torch.empty_like(product) if student.weight is None else product
    contents = [target.rows(part) for target in targets]
    for inner in _parts(len(product), -(-len(product) // PARTS)):
        leaf = product[inner].detach().requires_grad_()
        with torch.enable_grad():
            losses = rows(student.finish(leaf), *(content[inner] for content in contents))
        (gradient[inner],) = torch.autograd.grad(losses, leaf, upstream[inner])
    return gradient


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


def _parts(count: int, chunk: int) -> list[slice]:
    starts = range(0, count, max(chunk, 1))
    return [slice(start, min(start + chunk, count)) for start in starts]
