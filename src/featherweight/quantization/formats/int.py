"""Integers with a scale a group: value = scale * (code - zero).

The idea: `bits` bits choose one of 2^bits equidistant levels; `group` columns of a row share one fp16 scale (and, when
asymmetric, one uint8 zero point). Symmetric codes are -2^(bits-1) ... 2^(bits-1)-1, stored with that offset added.
This maps code for code onto what runtimes read (GGUF Q4_0/Q8_0, compressed-tensors "pack-quantized").

`fit` minimises squared error over a grid of scales (absmax scales lose badly below 4 bits: ptq.md measured 0.43
against 0.149 at 2 bits), weighted by the curvature's diagonal when given. Bytes lie in the canonical lane order of
`ops.lanes`: 16 rows x 32 columns, planes inside the byte, so rows are padded to 16 and columns to 32.
Cost of `fit`: one pass over the matrix per candidate scale.

`portable` scales have as few significant bits as the narrowest runtime keeps, before the codes are chosen, so that the
codes absorb the rounding: 8 when symmetric (bf16 and fp16 both hold such a scale, whatever the model's dtype), 11 - bits
when asymmetric (fp16 then also holds scale * zero, GGUF's minimum). They are stored as fp16 like any other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...base.bits import Bits
from ...base.errors import UsageError
from ...ops import lanes, matmul
from .base import Format, Integers, Params, QWeight

# Stored scales stay inside what both fp16 and bf16 hold as normal numbers, so that exports are exact.
SMALLEST_SCALE = 2.0**-14
LARGEST_SCALE = 65504.0


@dataclass(frozen=True)
class Int(Format):
    """2 to 8 bits a weight; `group=None` shares one scale across a whole row.

    `portable` rounds scales so that exports hold them exactly; when asymmetric, up to 4 bits only.
    """

    bits_per_code: int
    group: int | None
    symmetric: bool
    portable: bool

    def __init__(self, bits: int = 4, group: int | None = None, symmetric: bool = True, portable: bool = False) -> None:
        if bits not in range(2, 9):
            raise UsageError(f"Int(bits={bits}): bits must be 2 to 8")
        if group is not None and group < 1:
            raise UsageError(f"Int(group={group}): group must be a positive number of columns, or None for whole rows")
        object.__setattr__(self, "bits_per_code", bits)
        object.__setattr__(self, "group", group)
        if portable and not symmetric and bits > 4:
            raise UsageError(f"Int(bits={bits}, symmetric=False, portable=True): no other program's file holds that")
        object.__setattr__(self, "symmetric", symmetric)
        object.__setattr__(self, "portable", portable)

    def __repr__(self) -> str:
        parts = [f"bits={self.bits_per_code}"]
        parts += [f"group={self.group}"] if self.group is not None else []
        parts += [] if self.symmetric else ["symmetric=False"]
        parts += ["portable=True"] if self.portable else []
        return f"Int({', '.join(parts)})"

    @property
    def tile(self) -> tuple[int, int]:
        return (1, 1)

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        return (-(-shape[0] // 16) * 16, -(-shape[1] // 32) * 32)

    def check(self, shape: tuple[int, int], name: str) -> None:
        check_group(self.group, shape, name)

    def _groups(self, columns: int) -> int:
        # Padding columns of a grouped row share the last group: they are zero, so they cost no accuracy.
        return 1 if self.group is None else math.ceil(columns / self.group)

    def _group_of(self, columns: Tensor) -> Tensor:
        return torch.zeros_like(columns) if self.group is None else columns // self.group

    def fit(self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None) -> Params:
        rows, columns = w.shape
        width = self.group or columns
        groups = self._groups(columns)
        extra = groups * width - columns
        importance = torch.ones(columns) if weight is None else weight.float()
        importance = torch.nn.functional.pad(importance, (0, extra)).view(1, groups, width)
        scale = torch.empty(rows, groups)
        zero = torch.full((rows, groups), 2.0 ** (self.bits_per_code - 1))
        chunk = max(1, (1 << 21) // columns)
        for start in range(0, rows, chunk):
            part = torch.nn.functional.pad(w[start : start + chunk].float(), (0, extra)).view(-1, groups, width)
            found = self._search(part, importance)
            scale[start : start + chunk], zero[start : start + chunk] = found
        tensors = {"scale": scale.half(), "zero": zero.to(torch.uint8)}
        return Params((rows, columns), tensors)

    def _search(self, part: Tensor, importance: Tensor) -> tuple[Tensor, Tensor]:
        """Best of a grid of scales (rounded to fp16 first) for every (row, group) of `part`."""
        top = 2**self.bits_per_code - 1
        half = 2.0 ** (self.bits_per_code - 1)
        low, high = part.amin(-1).clamp(max=0), part.amax(-1).clamp(min=0)
        full = torch.maximum(-low, high) / half if self.symmetric else (high - low) / top
        steps = 48 if self.bits_per_code <= 4 else 12
        best = torch.full_like(full, torch.inf)
        best_scale, best_zero = full.clone(), torch.full_like(full, half)
        for shrink in torch.linspace(1.1 if self.symmetric else 1.0, 0.25 if self.bits_per_code <= 4 else 0.8, steps):
            scale = self._storable(full * shrink)
            zero = torch.full_like(full, half) if self.symmetric else (-low / scale).round().clamp(0, top)
            codes = (part / scale[..., None]).add_(zero[..., None]).round_().clamp_(0, top)
            error = codes.sub_(zero[..., None]).mul_(scale[..., None]).sub_(part).square_().mul_(importance).sum(-1)
            better = error < best
            best = torch.where(better, error, best)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
        return self._storable(best_scale), best_zero

    def _storable(self, scale: Tensor) -> Tensor:
        """The nearest scales that are stored, in float32."""
        if not self.portable:
            return scale.clamp(min=SMALLEST_SCALE, max=LARGEST_SCALE).half().float()
        digits = 8 if self.symmetric else 11 - self.bits_per_code
        # Not fp16's own largest number: in 8 digits it rounds to one that fp16 cannot hold, nor may scale * zero leave it.
        largest = 2.0 ** (15 if self.symmetric else 15 - self.bits_per_code)
        mantissa, exponent = torch.frexp(scale.clamp(min=SMALLEST_SCALE, max=largest))
        return torch.ldexp((mantissa * 2**digits).round(), exponent - digits)

    def snap(self, x: Tensor, params: Params, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        group = self._group_of(columns)
        scale = params.tensors["scale"][rows, group].float().view(-1, 1, 1)
        zero = params.tensors["zero"][rows, group].float().view(-1, 1, 1)
        codes = (x / scale + zero).round().clamp(0, 2**self.bits_per_code - 1)
        return (codes - zero) * scale, codes.to(torch.uint8).view(-1)

    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        rows, columns = self.padded(shape)
        tensors = {
            "codes": lanes.int_to_lanes(codes.view(rows, columns), self.bits_per_code),
            "scale": blocked(params.tensors["scale"]),
        }
        if not self.symmetric:
            tensors["zero"] = blocked(params.tensors["zero"])
        return QWeight(self, shape, tensors)

    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        return self._decode(weight, None)[: weight.shape[0], : weight.shape[1]]

    def unpack_rows(self, weight: QWeight, rows: Int64[Tensor, " count"]) -> Float[Tensor, "count columns"]:
        if rows.numel() and int(rows.max()) >= weight.shape[0]:
            raise IndexError(f"row {int(rows.max())} of a matrix of {weight.shape[0]} rows")
        return self._decode(weight, rows)[:, : weight.shape[1]]

    def _decode(self, weight: QWeight, indices: Tensor | None) -> Tensor:
        rows, columns = self.padded(weight.shape)
        return matmul.int_dense(
            weight.tensors["codes"],
            rows,
            columns,
            self.bits_per_code,
            self.group or columns,
            weight.tensors["scale"],
            weight.tensors.get("zero"),
            indices=indices,
        )

    def integers(self, weight: QWeight) -> Integers:
        rows, columns = weight.shape
        codes = lanes.lanes_to_int(weight.tensors["codes"], *self.padded(weight.shape), self.bits_per_code)
        half, top = 1 << (self.bits_per_code - 1), (1 << self.bits_per_code) - 1
        groups = self._groups(columns)  # without those of padding alone
        zero = half if self.symmetric else unblocked(weight.tensors["zero"])[:rows, :groups]
        scale = unblocked(weight.tensors["scale"])[:rows, :groups].float()
        lowest, highest = (-half, top - half) if self.symmetric else (-top, top)
        return Integers(codes[:rows, :columns], scale, zero, self.group or columns, lowest, highest)

    def stored(self, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        rows, columns = self.padded(shape)
        blocked = (rows // 16, self._groups(columns), 16)
        tensors = {
            "codes": ((rows * columns * self.bits_per_code // 8,), torch.uint8),
            "scale": (blocked, torch.float16),
        }
        if not self.symmetric:
            tensors["zero"] = (blocked, torch.uint8)
        return tensors

    def bits(self, shape: tuple[int, int]) -> Bits:
        rows, columns = self.padded(shape)
        groups = self._groups(columns)
        weights = shape[0] * shape[1]
        scales, zeros = 16 * shape[0] * groups, 0 if self.symmetric else 8 * shape[0] * groups
        spare_rows = (rows - shape[0]) * groups * (16 if self.symmetric else 24)
        padding = (rows * columns - weights) * self.bits_per_code + spare_rows
        return Bits(weights, weights * self.bits_per_code, scales, zeros, padding=padding)


def check_group(group: int | None, shape: tuple[int, int], name: str) -> None:
    """Raise UsageError, naming what would fit, unless the columns are a multiple of `group`."""
    if group is not None and shape[1] % group:
        fits = [g for g in (128, 64, 32, 16, 8, 4, 2) if shape[1] % g == 0]
        hint = " or ".join(str(g) for g in fits[:3]) if fits else "group=None"
        raise UsageError(f"{name} has {shape[1]} inputs, not a multiple of group={group}; try {hint}")


def blocked(values: Tensor) -> Tensor:
    """(rows, groups) -> (rows / 16, groups, 16): the 16 rows that a vector of lanes holds lie together."""
    rows, groups = values.shape
    return values.view(rows // 16, 16, groups).transpose(1, 2).contiguous()


def unblocked(values: Tensor) -> Tensor:
    """The inverse: (rows / 16, groups, 16) -> (rows, groups)."""
    return values.transpose(1, 2).flatten(0, 1)
