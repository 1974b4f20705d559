"""Ternary: every weight is -1, 0 or 1 times a scale shared by its row, or by `group` of its columns.

The idea (ternary weight networks, arXiv:1605.04711): a product needs no multiplication inside a row, only additions, and
on N(0,1) the error is 0.190 where two bits of equidistant levels leave 0.149. Codes 0, 1, 2 mean -1, 0, 1 and are stored
as `Int(2)` stores its codes (`ops.lanes`), 2 bits each; code 3 stands for nothing and is refused when a model is loaded.
The constant zero point 1 is not stored.

`fit` is exact: with the k largest magnitudes kept, the best scale is their (weighted) mean, and of all k the one that
leaves the least squared error is taken. Cost: one sort of the matrix.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...base.bits import Bits
from ...base.errors import BadInput, UsageError
from ...ops import lanes, matmul
from .base import Format, Integers, Params, QWeight
from .int import SMALLEST_SCALE, blocked, check_group, unblocked

BITS = 2
ZERO = 1
WEIGHTS_A_BATCH = 1 << 21


@dataclass(frozen=True)
class Ternary(Format):
    """-1, 0 or 1 times a scale; `group=None` shares one scale across a whole row."""

    group: int | None

    def __init__(self, group: int | None = None) -> None:
        if group is not None and group < 1:
            raise UsageError(f"Ternary(group={group}): group must be a positive number of columns, or None for rows")
        object.__setattr__(self, "group", group)

    def __repr__(self) -> str:
        return "Ternary()" if self.group is None else f"Ternary(group={self.group})"

    @property
    def tile(self) -> tuple[int, int]:
        return (1, 1)

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        return (-(-shape[0] // 16) * 16, -(-shape[1] // 32) * 32)

    def check(self, shape: tuple[int, int], name: str) -> None:
        check_group(self.group, shape, name)

    def check_codes(self, weight: QWeight, name: str) -> None:
        codes = weight.tensors["codes"]
        if bool(((codes & (codes >> 1)) & 0b01010101).any()):
            raise BadInput(f"{name} holds code 3, which no ternary weight has; the file is damaged")

    def _groups(self, columns: int) -> int:
        # Padding columns of a grouped row share the last group, as in Int.
        return 1 if self.group is None else math.ceil(columns / self.group)

    def fit(self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None) -> Params:
        rows, columns = w.shape
        groups, width = self._groups(columns), self.group or columns
        extra = groups * width - columns
        importance = torch.ones(columns) if weight is None else weight.float()
        importance = torch.nn.functional.pad(importance, (0, extra)).view(1, groups, width)
        scale = torch.empty(rows, groups)
        chunk = max(1, WEIGHTS_A_BATCH // columns)
        for start in range(0, rows, chunk):
            part = torch.nn.functional.pad(w[start : start + chunk].float(), (0, extra)).view(-1, groups, width)
            scale[start : start + chunk] = _best_scale(part, importance)
        return Params((rows, columns), {"scale": scale.clamp(min=SMALLEST_SCALE, max=65504.0).half()})

    def snap(self, x: Tensor, params: Params, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        group = torch.zeros_like(columns) if self.group is None else columns // self.group
        scale = params.tensors["scale"][rows, group].float().view(-1, 1, 1)
        trits = (x / scale).round().clamp(-1, 1)
        return trits * scale, (trits + ZERO).to(torch.uint8).view(-1)

    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        rows, columns = self.padded(shape)
        tensors = {
            "codes": lanes.int_to_lanes(codes.view(rows, columns), BITS),
            "scale": blocked(params.tensors["scale"]),
        }
        return QWeight(self, shape, tensors)

    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        return self._decode(weight, None)[: weight.shape[0], : weight.shape[1]]

    def unpack_rows(self, weight: QWeight, rows: Int64[Tensor, " count"]) -> Float[Tensor, "count columns"]:
        if rows.numel() and int(rows.max()) >= weight.shape[0]:
            raise IndexError(f"row {int(rows.max())} of a matrix of {weight.shape[0]} rows")
        return self._decode(weight, rows)[:, : weight.shape[1]]

    def _decode(self, weight: QWeight, indices: Tensor | None) -> Tensor:
        rows, columns = self.padded(weight.shape)
        codes, scale = weight.tensors["codes"], weight.tensors["scale"]
        zero = torch.full_like(scale, ZERO)
        return matmul.int_dense(codes, rows, columns, BITS, self.group or columns, scale, zero, indices=indices)

    def integers(self, weight: QWeight) -> Integers:
        rows, columns = weight.shape
        codes = lanes.lanes_to_int(weight.tensors["codes"], *self.padded(weight.shape), BITS)[:rows, :columns]
        scale = unblocked(weight.tensors["scale"])[:rows, : self._groups(columns)].float()
        return Integers(codes, scale, ZERO, self.group or columns, -1, 1)

    def stored(self, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        rows, columns = self.padded(shape)
        return {
            "codes": ((rows * columns * BITS // 8,), torch.uint8),
            "scale": ((rows // 16, self._groups(columns), 16), torch.float16),
        }

    def bits(self, shape: tuple[int, int]) -> Bits:
        rows, columns = self.padded(shape)
        weights, groups = shape[0] * shape[1], self._groups(columns)
        padding = (rows * columns - weights) * BITS + (rows - shape[0]) * groups * 16
        return Bits(weights, weights * BITS, 16 * shape[0] * groups, padding=padding)


def _best_scale(part: Tensor, importance: Tensor) -> Tensor:
    """The scale of every (row, group) of `part` that leaves the least weighted squared error."""
    magnitude, order = part.abs().sort(-1, descending=True)
    weights = importance.expand_as(part).gather(-1, order)
    kept = (weights * magnitude).cumsum(-1, dtype=torch.float64)
    mass = weights.cumsum(-1, dtype=torch.float64)
    means = torch.where(mass > 0, kept / mass, 0.0)
    # Keeping k weights at their mean lowers the error by kept^2 / mass.
    return means.gather(-1, (kept * means).argmax(-1, keepdim=True)).squeeze(-1).float()
