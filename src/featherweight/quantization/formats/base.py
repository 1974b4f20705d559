"""A format says which numbers a weight may be, and which bytes hold them.

Every format works on a matrix `w` of shape (rows, columns) = (outputs, inputs) in float32. `fit` chooses the
continuous parameters (scales, zeros), `snap` the nearest representable values of a batch of tiles, `pack` the bytes.
Formats know nothing of layers, files, rotation or rounding methods.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...base.bits import Bits


@dataclass(frozen=True)
class Params:
    """Continuous parameters of one matrix, already rounded to what is stored. Keys are the format's own."""

    shape: tuple[int, int]
    tensors: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class QWeight:
    """What is stored for one matrix: named tensors whose bytes are counted by `format.bits`."""

    format: Format
    shape: tuple[int, int]
    tensors: Mapping[str, Tensor]

    def dense(self) -> Float[Tensor, "rows columns"]:
        """The represented numbers as float32."""
        return self.format.unpack(self)


@dataclass(frozen=True)
class Integers:
    """A matrix as what other programs hold: value = scale * (code - zero), one scale for `group` columns of a row.

    `codes` (rows, columns) uint8; `scale` (rows, groups) float32; `zero` (rows, groups) uint8, or one number for all.
    Levels code - zero lie in `lowest` ... `highest`.
    """

    codes: Tensor
    scale: Tensor
    zero: Tensor | int
    group: int
    lowest: int
    highest: int


class Format(ABC):
    """Abstract; implementations are final frozen dataclasses whose repr is their entry in a checkpoint."""

    @property
    @abstractmethod
    def tile(self) -> tuple[int, int]:
        """Rows x columns decided together: (1, 1) for scalars, (16, 16) for the trellis."""

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """The shape that is stored for a matrix of `shape`; what is added is zero and is counted by `bits`."""
        return shape

    @abstractmethod
    def check(self, shape: tuple[int, int], name: str) -> None:
        """Raise UsageError, naming layer `name` and what to try, if a matrix of `shape` cannot be held."""

    def check_codes(self, weight: QWeight, name: str) -> None:
        """Raise BadInput, naming layer `name`, if stored codes stand for no number; in most formats every code does."""
        return

    @abstractmethod
    def fit(self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None) -> Params:
        """Scales for `w` (padded already), minimising squared error, weighted per column when `weight` is given."""

    @abstractmethod
    def snap(
        self, x: Float[Tensor, "tiles tile_rows tile_columns"], params: Params, rows: Tensor, columns: Tensor
    ) -> tuple[Float[Tensor, "tiles tile_rows tile_columns"], Tensor]:
        """Nearest representable values of a batch of tiles and their codes.

        `rows[i]`, `columns[i]`: index of tile i in tiles (not in weights). Codes: (tiles, ...) of the format's own
        dtype; `pack` takes them for all tiles, ordered row-major: (tile_rows_total * tile_columns_total, ...).
        """

    @abstractmethod
    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        """The stored tensors for codes of every tile (row-major) of a matrix whose unpadded shape is `shape`."""

    @abstractmethod
    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        """The represented numbers, float32, unpadded; `unpack(pack(codes))` equals `snap`'s values exactly."""

    def unpack_rows(self, weight: QWeight, rows: Int64[Tensor, " count"]) -> Float[Tensor, "count columns"]:
        """`unpack(weight)[rows]`, for a look-up in a table; formats that can decode a row alone do only that."""
        return self.unpack(weight)[rows]

    def integers(self, weight: QWeight) -> Integers | None:
        """The codes as whole numbers with their scales; None for formats that are not scaled whole numbers."""
        return None

    @abstractmethod
    def stored(self, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Name -> (shape, dtype) of every stored tensor of a matrix of `shape`; what a loader must find."""

    def constants(self) -> dict[str, list[int]]:
        """The numbers that this format's text stands for and a decoder elsewhere would need; checkpoints hold them."""
        return {}

    @abstractmethod
    def bits(self, shape: tuple[int, int]) -> Bits:
        """What a matrix of `shape` costs; equals the bytes of `stored` tensors exactly (8 x)."""
