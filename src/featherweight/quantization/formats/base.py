"""A format says which numbers a weight may be; its layout (`layouts/`) says which bytes hold them.

Every format works on a matrix `w` of shape (rows, columns) = (outputs, inputs) in float32, padded
to `format.padded(shape)`. `fit` chooses continuous parameters (scales, zero points), `snap` and
`project` the nearest representable numbers, `pack` the bytes. Formats know nothing of layers,
files, rotation or rounding methods, and compute on the device of their inputs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...base.errors import UsageError
from ..layouts.base import Layout

# Weights in one batch of tiles: bounds the temporary memory at a few hundred MB whatever the
# matrix.
WEIGHTS_PER_BATCH = 1 << 21


@dataclass(frozen=True)
class Params:
    """Continuous parameters of one matrix of (padded) `shape`, under the format's own keys:
    "scale", "zero", ...

    `fit` and scale rules give float32 tensors, which may need gradients; `stored()` gives the
    numbers that a file keeps.
    """

    format: Format
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def stored(self) -> Params:
        """These parameters rounded to what is stored, in the stored dtypes; the same when they are
        so already.
        """
        return Params(self.format, self.shape, self.format.round_params(self.tensors))


@dataclass(frozen=True)
class QWeight:
    """What is stored for one matrix of (unpadded) `shape`: the tensors of `format.stored(shape)` by
    name.
    """

    format: Format
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The represented numbers as float32."""
        return self.format.unpack(self)


@dataclass(frozen=True)
class Integers:
    """A matrix as what other programs hold: value = scale * (code - zero), one scale for `group`
    columns of a row.

    `codes` (rows, columns) uint8; `scale` (rows, groups) float32; `zero` (rows, groups) uint8, or
    one number for all. The levels code - zero lie in `lowest` ... `highest`.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | int
    group: int
    lowest: int
    highest: int


class Format(Layout):
    """Abstract base of all formats.

    An implementation is a final frozen dataclass that inherits from its layout and adds no fields:
    `class Int(IntLayout, ScaledCodes)`. Its repr is its entry in a checkpoint.
    """

    @property
    @abstractmethod
    def tile(self) -> tuple[int, int]:
        """(rows, columns) decided together, (1, 1) for scalars and (16, 16) for the trellis."""

    @abstractmethod
    def fit(
        self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None
    ) -> Params:
        """Parameters that minimise the squared error of nearest rounding of `w` (padded already).

        `weight` (columns), where given, weighs the squared errors of each column.
        """

    @abstractmethod
    def round_params(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of parameters rounded to the nearest that can be stored, in their stored
        dtypes.
        """

    @abstractmethod
    def snap(
        self,
        tiles: Float[Tensor, "tiles tile_rows tile_columns"],
        params: Params,
        rows: Int64[Tensor, " tiles"],
        columns: Int64[Tensor, " tiles"],
    ) -> tuple[Float[Tensor, "tiles tile_rows tile_columns"], Tensor]:
        """Nearest representable values of a batch of tiles, and their codes.

        `rows[i]` and `columns[i]` are the position of tile i, counted in tiles. Codes have the
        shape (tiles, ...) and the format's own dtype; `pack` takes those of all tiles in row-major
        order. Differentiable in `params`.
        """

    def project(
        self, w: Float[Tensor, "rows columns"], params: Params
    ) -> Float[Tensor, "rows columns"]:
        """Nearest representable values of the whole matrix `w` (padded): bit for bit those of
        `snap`, tile by tile.

        Differentiable in `params` (the choice of codes has no gradient): the function that
        training, nearest rounding and export share, so that the numbers that were trained are the
        numbers that ship.
        """
        values = torch.cat([values for values, _ in self._snapped_batches(w, params)])
        b_o, b_i = self.tile
        return (
            values.view(w.shape[0] // b_o, w.shape[1] // b_i, b_o, b_i)
            .transpose(1, 2)
            .reshape(w.shape)
        )

    def nearest_codes(self, w: Float[Tensor, "rows columns"], params: Params) -> Tensor:
        """Codes of the values that `project` gives, as `pack` takes them: those of all tiles in
        row-major order.
        """
        return torch.cat([codes for _, codes in self._snapped_batches(w, params)])

    def _snapped_batches(self, w: Tensor, params: Params) -> Iterator[tuple[Tensor, Tensor]]:
        """(values, codes) of batches of tiles in row-major order."""
        b_o, b_i = self.tile
        tile_columns = w.shape[1] // b_i
        tiles = w.view(-1, b_o, tile_columns, b_i).transpose(1, 2).reshape(-1, b_o, b_i)
        step = max(1, WEIGHTS_PER_BATCH // (b_o * b_i))
        for start in range(0, tiles.shape[0], step):
            index = torch.arange(start, min(start + step, tiles.shape[0]), device=w.device)
            yield self.snap(
                tiles[start : start + step], params, index // tile_columns, index % tile_columns
            )

    @abstractmethod
    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        """The stored tensors for the codes of every tile (row-major) of a matrix whose unpadded
        shape is `shape`.

        `params` are stored ones (`Params.stored`). `unpack` of the result equals the values that
        `snap` gave with them.
        """

    @abstractmethod
    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        """The represented numbers, float32, without padding."""

    def unpack_rows(
        self, weight: QWeight, rows: Int64[Tensor, " count"]
    ) -> Float[Tensor, "count columns"]:
        """`unpack(weight)[rows]`, for a look-up in a table; formats that can decode a row alone do
        only that.

        Raises IndexError for a row that the matrix does not have.
        """
        return self.unpack(weight)[rows]

    def check_codes(self, weight: QWeight, name: str) -> None:
        """Raise BadInput, naming the layer `name`, if a stored code stands for no number; in most
        formats every code does.
        """
        return

    def integers(self, weight: QWeight) -> Integers | None:
        """The codes as integers with their scales; None for a format of another kind."""
        return None


def require_stored(params: Params) -> None:
    """Raise UsageError when parameters still have more digits than a file keeps; `pack` must not
    round them unseen.
    """
    if float_keys := [
        key
        for key, tensor in params.tensors.items()
        if tensor.dtype in (torch.float32, torch.float64)
    ]:
        raise UsageError(
            f"{params.format!r} packs stored parameters, and {', '.join(float_keys)} is not "
            "rounded yet; choose codes with `params.stored()` and pack those"
        )


def check_rows(weight: QWeight, rows: Int64[Tensor, " count"]) -> None:
    """Raise IndexError when `rows` names a row that the matrix does not have."""
    if rows.numel() and int(rows.max()) >= weight.shape[0]:
        raise IndexError(f"row {int(rows.max())} of a matrix of {weight.shape[0]} rows")
