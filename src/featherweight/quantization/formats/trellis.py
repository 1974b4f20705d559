"""Trellis codes: the 256 weights of a 16 x 16 tile are coded together as one path through a
bitshift trellis, with `bits` bits for each weight.

The method is QTIP (arXiv:2406.11235). For each weight, `bits` new bits are shifted into a state of
L bits, and the value of the weight is f(state). The Viterbi algorithm finds the path whose values
are nearest to the tile. On N(0, 1) at 2 bits the squared error is 11 % above the Shannon bound;
that of scalar codes is 90 % above it. A path ends in the state in which it began, so a tile takes
exactly 256 * bits bits. Each row of the matrix has one fp16 scale. The bits of a tile are stored
from its last weight to its first, so that a decoder reads bytes forward, and in the 64-lane order
of `ops.lanes`, for which rows and columns are padded to multiples of 64. Cost: encoding takes 2
Viterbi passes with 2^L additions for each weight; decoding takes one table look-up for each weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...ops import lanes, matmul, trellis
from ..layouts.trellis import TrellisLayout
from .base import Format, Params, QWeight, check_rows, require_stored
from .scaled_codes import LARGEST_SCALE
from .trellis_codes import code_values

TILE = 16
BLOCK_ROWS = 256  # rows of a block in lane order
# For each number of bits the root mean square that weights should have after the division by the
# scale. These are the measured optima on N(0, 1) (benchmarks/rounding.py).
GAIN = {1: 1.13, 2: 0.97, 3: 0.93, 4: 0.86}


@dataclass(frozen=True, repr=False)
class Trellis(TrellisLayout, Format):
    """Trellis codes of 1 to 4 bits; fields and errors as in `TrellisLayout`."""

    @property
    def tile(self) -> tuple[int, int]:
        return (TILE, TILE)

    def values(self, device: torch.device | None = None) -> Float[Tensor, " states"]:
        """The value f(state) of each state; over all states they have unit variance."""
        return code_values(self.code, self.bits, self.L).to(device or "cpu")

    def fit(
        self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None
    ) -> Params:
        # Columns of zeros are padding. They are not counted in the root mean square of a row.
        num_columns = (w != 0).any(0).sum().clamp(min=1)
        rms = (w.float().square().sum(1) / num_columns).sqrt()
        return Params(self, (w.shape[0], w.shape[1]), {"scale": rms / GAIN[self.bits]})

    def round_params(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"scale": tensors["scale"].clamp(max=LARGEST_SCALE).half()}

    def snap(
        self, tiles: Tensor, params: Params, rows: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor]:
        scale = params.tensors["scale"].float().view(-1, TILE)[rows].unsqueeze(-1)
        target = torch.where(scale > 0, tiles / scale, torch.zeros_like(tiles))
        values = self.values(tiles.device)
        streams = trellis.encode(target.reshape(-1, TILE * TILE), values, self.L, self.bits)
        nearest = trellis.decode(streams, values, self.L, self.bits)
        return nearest.view(-1, TILE, TILE) * scale, streams

    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        require_stored(params)
        rows, columns = self.padded(shape)
        streams = codes.view(rows // TILE, columns // TILE, -1)
        return QWeight(
            self,
            shape,
            {"codes": lanes.trellis_to_lanes(streams), "scale": params.tensors["scale"]},
        )

    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        rows, columns = self.padded(weight.shape)
        codes, scale = weight.tensors["codes"], weight.tensors["scale"]
        dense = matmul.trellis_dense(
            codes, rows, columns, self.values(codes.device), self.L, self.bits, scale
        )
        return dense[: weight.shape[0], : weight.shape[1]]

    def unpack_rows(
        self, weight: QWeight, rows: Int64[Tensor, " count"]
    ) -> Float[Tensor, "count columns"]:
        """Decodes only the blocks of 256 rows that hold the requested rows."""
        check_rows(weight, rows)
        height, columns = self.padded(weight.shape)
        codes, scale = weight.tensors["codes"], weight.tensors["scale"]
        values = self.values(codes.device)
        row_bytes = columns * self.bits // 8
        dense_rows = torch.empty(rows.numel(), weight.shape[1], device=codes.device)
        blocks = rows // BLOCK_ROWS
        for block in blocks.unique().tolist():
            start, end = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, height)
            block_codes = codes[start * row_bytes : end * row_bytes]
            dense = matmul.trellis_dense(
                block_codes, end - start, columns, values, self.L, self.bits, scale[start:end]
            )
            matches = blocks == block
            dense_rows[matches] = dense[rows[matches] - start, : weight.shape[1]]
        return dense_rows
