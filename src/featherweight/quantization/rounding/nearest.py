"""Nearest: every tile to its nearest representable numbers, without curvature. Minimised: ||W - W_hat||^2."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..curvature.base import Factors
from ..formats.base import Format
from .base import Rounding, Solved, pad, require_finite

# Tiles in one batch: bounds memory at a few hundred MB whatever the matrix (tables have tens of millions of weights).
WEIGHTS_A_BATCH = 1 << 21


@dataclass(frozen=True)
class Nearest(Rounding):
    """The baseline; also what embeddings and heads get."""

    def solve(self, w: Tensor, factors: Factors | None, format: Format, name: str = "the matrix") -> Solved:
        require_finite(w, name)
        shape = (w.shape[0], w.shape[1])
        padded = pad(w, format.padded(shape))
        params = format.fit(padded)
        b_o, b_i = format.tile
        tile_columns = padded.shape[1] // b_i
        tiles = padded.view(-1, b_o, tile_columns, b_i).transpose(1, 2).reshape(-1, b_o, b_i)
        step = max(1, WEIGHTS_A_BATCH // (b_o * b_i))
        codes = []
        for start in range(0, tiles.shape[0], step):
            index = torch.arange(start, min(start + step, tiles.shape[0]))
            part = tiles[start : start + step]
            codes.append(format.snap(part, params, index // tile_columns, index % tile_columns)[1])
        return Solved(format.pack(torch.cat(codes), params, shape))
