"""A format defines the values that a quantized weight can have; its layout (`layouts/`) defines the
bytes that store them.

Every format works on a matrix `w` of shape (rows, columns) = (outputs, inputs) in float32, padded
to `format.padded(shape)`. `fit` chooses continuous parameters (scales, zero points), `snap` and
`project` choose the nearest representable numbers, and `pack` makes the bytes. A format does not
depend on layers, files, rotations or rounding methods, and computes on the device of its inputs.
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

# Number of weights in one batch of tiles, which limits the temporary memory to a few hundred MB for
# matrices of any size.
WEIGHTS_PER_BATCH = 1 << 21


@dataclass(frozen=True)
class Params:
    """Continuous parameters of one matrix of (padded) `shape`, under the keys of the format:
    "scale", "zero", ...

    `fit` returns float32 tensors, which may need gradients; `stored()` returns the numbers that are
    stored in a file.
    """

    format: Format
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def stored(self) -> Params:
        """These parameters rounded to the numbers that a file stores, in the stored dtypes.
        Parameters that are already rounded do not change.
        """
        return Params(self.format, self.shape, self.format.round_params(self.tensors))


@dataclass(frozen=True)
class QWeight:
    """The stored form of one matrix of (unpadded) `shape`: the tensors that `format.stored(shape)`
    lists, by name.
    """

    format: Format
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The represented numbers as float32."""
        return self.format.unpack(self)


@dataclass(frozen=True)
class Integers:
    """A matrix of scaled integers, the form that other programs can store:
    value = scale * (code - zero), with one scale for `group` columns of a row.

    `codes`: uint8 (rows, columns). `scale`: float32 (rows, groups). `zero`: uint8 (rows, groups),
    or one number for the whole matrix. The levels code - zero lie in `lowest` ... `highest`.
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
    `class Int(IntLayout, ScaledCodes)`. Its repr is the text that a checkpoint stores.
    """

    @property
    @abstractmethod
    def tile(self) -> tuple[int, int]:
        """Rows and columns of a tile, whose codes are chosen together: (1, 1) for scalar formats,
        (16, 16) for the trellis.
        """

    @abstractmethod
    def fit(
        self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None
    ) -> Params:
        """Parameters that minimise the squared error of rounding `w` to nearest.

        w: the padded matrix. weight: factor of the squared errors of each column; None for equal
        factors.
        """

    @abstractmethod
    def round_params(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters `tensors` rounded to the nearest numbers that can be stored, in the stored
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
        """The nearest representable values of a batch of tiles, and their codes.

        rows, columns: the position of each tile in the matrix, counted in tiles. The codes have the
        shape (tiles, ...) and the format's own dtype; `pack` expects the codes of all tiles in
        row-major order. The values are differentiable in `params`.
        """

    def project(
        self, w: Float[Tensor, "rows columns"], params: Params
    ) -> Float[Tensor, "rows columns"]:
        """The nearest representable values of the whole matrix `w` (padded), equal bit for bit to
        the values that `snap` gives for its tiles.

        The values are differentiable in `params`; the choice of codes has no gradient. Training,
        nearest rounding and export all use this function, so that a trained model has exactly the
        values that are exported.
        """
        values = torch.cat([values for values, _ in self._snapped_batches(w, params)])
        b_o, b_i = self.tile
        return (
            values.view(w.shape[0] // b_o, w.shape[1] // b_i, b_o, b_i)
            .transpose(1, 2)
            .reshape(w.shape)
        )

    def nearest_codes(self, w: Float[Tensor, "rows columns"], params: Params) -> Tensor:
        """The codes of the values that `project` returns: those of all tiles in row-major order, as
        `pack` expects them.
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
        """The stored form of a matrix.

        codes: those of all tiles in row-major order. params: rounded parameters
        (`Params.stored`); others raise UsageError. shape: the unpadded shape. `unpack` of the
        result equals the values that `snap` gave for these parameters.
        """

    @abstractmethod
    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        """The values of the stored matrix, float32, without padding."""

    def unpack_rows(
        self, weight: QWeight, rows: Int64[Tensor, " count"]
    ) -> Float[Tensor, "count columns"]:
        """`unpack(weight)[rows]`, for a look-up in an embedding table. Formats override it to
        decode only the rows that are needed.

        Raises IndexError for a row that the matrix does not have.
        """
        return self.unpack(weight)[rows]

    def check_codes(self, weight: QWeight, name: str) -> None:
        """Raise BadInput, which names the layer `name`, when a stored code has no value. In most
        formats every code has a value, so this default does nothing.
        """
        return

    def integers(self, weight: QWeight) -> Integers | None:
        """The matrix as scaled integers; None for a format that has other values."""
        return None


def require_stored(params: Params) -> None:
    """Raise UsageError when parameters are not yet rounded to stored numbers. `pack` must not round
    them itself, because the codes were chosen for other numbers then.
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
