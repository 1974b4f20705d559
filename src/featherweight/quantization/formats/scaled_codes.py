"""The common base of `Int` and `Ternary`: a weight is scale * (code - zero) with an integer code.

Each code depends on its own weight only, so the whole matrix is rounded at once. The bytes are in
the lane order of `ops.lanes` and are decoded by `ops.matmul`. Subclasses choose the scales
(`fit_groups`) and the codes (`round_to_codes`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...ops import lanes, matmul
from ..layouts.scaled_codes import ScaledCodesLayout
from .base import WEIGHTS_PER_BATCH, Format, Integers, Params, QWeight, check_rows, require_stored

# Stored scales are limited to numbers that are normal in both fp16 and bf16, so that exports are
# exact.
SMALLEST_SCALE = 2.0**-14
LARGEST_SCALE = 65504.0


class ScaledCodes(ScaledCodesLayout, Format):
    """Abstract base of formats with scaled integer codes.

    Their parameters are "scale" and, if the layout stores zero points, "zero", both of shape (rows,
    groups).
    """

    @property
    def tile(self) -> tuple[int, int]:
        return (1, 1)

    @property
    @abstractmethod
    def level_range(self) -> tuple[int, int]:
        """The lowest and the highest level, code - zero, that a matrix can hold."""

    @abstractmethod
    def fit_groups(
        self,
        weights: Float[Tensor, "rows groups width"],
        importance: Float[Tensor, "1 groups width"],
    ) -> dict[str, Float[Tensor, "rows groups"]]:
        """For every group the parameters that minimise its squared error, weighted by
        `importance`.
        """

    @abstractmethod
    def round_to_codes(
        self, w: Tensor, scale: Tensor, zero: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """The nearest values of the numbers `w`, and their uint8 codes. `scale` and `zero`
        broadcast to the shape of `w`.
        """

    def fit(
        self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None
    ) -> Params:
        rows, columns = w.shape
        groups, width = self.num_groups(columns), self.group or columns
        padding = (0, groups * width - columns)
        importance = torch.ones(columns, device=w.device) if weight is None else weight.float()
        importance = torch.nn.functional.pad(importance, padding).view(1, groups, width)
        chunk = max(1, WEIGHTS_PER_BATCH // columns)
        parts = [
            self.fit_groups(
                torch.nn.functional.pad(part.float(), padding).view(-1, groups, width), importance
            )
            for part in w.split(chunk)
        ]
        return Params(
            self,
            (rows, columns),
            {key: torch.cat([part[key] for part in parts]) for key in parts[0]},
        )

    def round_params(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        stored_tensors = {"scale": self.storable_scale(tensors["scale"].float()).half()}
        return stored_tensors | (
            {"zero": tensors["zero"].to(torch.uint8)} if self.has_zeros else {}
        )

    def storable_scale(self, scale: Tensor) -> Tensor:
        """The nearest scales that can be stored, in float32."""
        return scale.clamp(min=SMALLEST_SCALE, max=LARGEST_SCALE).half().float()

    def snap(
        self, tiles: Tensor, params: Params, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        groups = torch.zeros_like(columns) if self.group is None else columns // self.group
        scale, zero = self._params_at(params, (rows, groups))
        values, codes = self.round_to_codes(tiles.view(-1), scale, zero)
        return values.view_as(tiles), codes

    def project(
        self, w: Float[Tensor, "rows columns"], params: Params
    ) -> Float[Tensor, "rows columns"]:
        return self._round_rows(w, params, slice(None))[0]

    def nearest_codes(self, w: Float[Tensor, "rows columns"], params: Params) -> Tensor:
        chunk = max(1, WEIGHTS_PER_BATCH // w.shape[1])
        slices = [slice(start, start + chunk) for start in range(0, w.shape[0], chunk)]
        return torch.cat([self._round_rows(w[rows], params, rows)[1] for rows in slices]).view(-1)

    def _round_rows(self, w: Tensor, params: Params, rows: slice) -> tuple[Tensor, Tensor]:
        groups = torch.arange(w.shape[1], device=w.device) // (self.group or w.shape[1])
        return self.round_to_codes(w, *self._params_at(params, (rows, groups)))

    def _params_at(
        self, params: Params, index: tuple[slice | Tensor, Tensor]
    ) -> tuple[Tensor, Tensor | float]:
        """(scale, zero point) in float32 at (row, group)."""
        scale = params.tensors["scale"][index].float()
        return scale, params.tensors["zero"][index].float() if self.has_zeros else float(
            self.zero_point
        )

    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        require_stored(params)
        rows, columns = self.padded(shape)
        tensors = {"codes": lanes.int_to_lanes(codes.view(rows, columns), self.code_bits)}
        tensors |= {key: to_row_blocks(values) for key, values in params.tensors.items()}
        return QWeight(self, shape, tensors)

    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        return self._decode(weight, None)[: weight.shape[0], : weight.shape[1]]

    def unpack_rows(
        self, weight: QWeight, rows: Int64[Tensor, " count"]
    ) -> Float[Tensor, "count columns"]:
        check_rows(weight, rows)
        return self._decode(weight, rows)[:, : weight.shape[1]]

    def _decode(self, weight: QWeight, indices: Tensor | None) -> Tensor:
        rows, columns = self.padded(weight.shape)
        codes, scale, zero = (
            weight.tensors["codes"],
            weight.tensors["scale"],
            weight.tensors.get("zero"),
        )
        if zero is None:
            zero = torch.full_like(scale, self.zero_point)
        return matmul.int_dense(
            codes,
            rows,
            columns,
            self.code_bits,
            self.group or columns,
            scale,
            zero,
            indices=indices,
        )

    def integers(self, weight: QWeight) -> Integers:
        rows, columns = weight.shape
        codes = lanes.lanes_to_int(
            weight.tensors["codes"], *self.padded(weight.shape), self.code_bits
        )
        groups = self.num_groups(columns)  # without those that hold padding only
        scale = from_row_blocks(weight.tensors["scale"])[:rows, :groups].float()
        zero = (
            from_row_blocks(weight.tensors["zero"])[:rows, :groups]
            if self.has_zeros
            else self.zero_point
        )
        return Integers(
            codes[:rows, :columns], scale, zero, self.group or columns, *self.level_range
        )


def to_row_blocks(values: Tensor) -> Tensor:
    """(rows, groups) -> (rows / 16, groups, 16), so that the scales of 16 rows, which a kernel
    loads as one vector, are adjacent.
    """
    rows, groups = values.shape
    return values.view(rows // 16, 16, groups).transpose(1, 2).contiguous()


def from_row_blocks(values: Tensor) -> Tensor:
    """The inverse of `to_row_blocks`: (rows / 16, groups, 16) -> (rows, groups)."""
    return values.transpose(1, 2).flatten(0, 1)
