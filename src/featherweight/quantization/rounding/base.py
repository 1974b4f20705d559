"""The abstract base of rounding methods, and the feedback loop over tiles that all methods with
curvature use.

The loop minimises tr(H_O E H_I E^T) for the error E = W - W_hat. Each factor is split as
H = L D L^T, where L is unit block-lower triangular and D block-diagonal, with blocks of the size of
the format's tile. The tiles are rounded from the last to the first, and the target of each tile is
W + L_O^T E L_I - E. Then L_O^T E L_I is the negative rounding noise N, and the loss becomes
tr(D_O N D_I N^T). With H_O = I this is the recursion over columns that is known as LDLQ (QuIP,
arXiv:2307.13304), GPTQ, or Babai's nearest plane. With both sides it is YAQA (arXiv:2505.22988),
which equals GPTQ on kron(H_O, H_I).

The buffer P = E L_I reduces the m^2 n^2 / 2b multiplications of the literal form to m n (m + n)
with equal results. The loop does not depend on a format: it calls a function `snap` that chooses
the values of a batch of tiles.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ...base.errors import BadInput
from ..curvature.base import Factors
from ..curvature.damping import damp, normalise
from ..formats.base import Format, QWeight

# (tiles, rows, columns) -> (values, codes), as `Format.snap` without its parameters.
Snap = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RoundingResult:
    """A rounded matrix, and the damping that the input and the output factor needed (None without a
    factor).
    """

    weight: QWeight
    damping: float | None = None
    output_damping: float | None = None


@dataclass(frozen=True)
class Split:
    """L - I of both factors (None for the identity), and the damping that each factor needed."""

    lower_in: Float[Tensor, "columns columns"]
    lower_out: Float[Tensor, "rows rows"] | None = None
    damping: float | None = None
    output_damping: float | None = None


class Rounding(ABC):
    """Abstract base of all rounding methods, which choose among the values of a format.

    Implementations are final frozen dataclasses. They work on tensors only and compute on the
    device of these tensors. `needs_curvature`: whether `solve` needs factors. In a run, a layer
    without curvature is rounded to nearest instead.
    """

    needs_curvature: ClassVar[bool]

    def split(
        self, factors: Factors, padded_shape: tuple[int, int], tile: tuple[int, int], name: str
    ) -> Split | None:
        """The feedback matrices of this method for a layer; None when it uses no feedback.

        padded_shape: the shape that the format stores. tile: the size of the format's tiles. name:
        the name of the layer, for errors. Raises BadInput for factors that no damping makes
        positive definite.
        """
        return None

    @abstractmethod
    def solve(
        self,
        w: Float[Tensor, "rows columns"],
        factors: Factors | None,
        format: Format,
        name: str = "the matrix",
    ) -> RoundingResult:
        """Round the weights `w` to values of `format`.

        factors: the curvature of the layer, in the same basis as `w`; None for methods that do not
        need it. name: the name of the layer, for errors. Raises BadInput for weights that are not
        finite, and for factors that are missing, not finite or not positive definite.
        """


def block_ldl(h: Float[Tensor, "n n"], block: int) -> Float[Tensor, "n n"]:
    """L - I of the factorisation H = L D L^T, where the diagonal blocks of L are identities of size
    `block`. The computation is in float64, the result in float32.

    n must be a multiple of `block`. Raises torch.linalg.LinAlgError when H is not positive
    definite.
    """
    n = h.shape[0]
    # L is the Cholesky factor C with each block column multiplied by the inverse of its diagonal
    # block.
    c = torch.linalg.cholesky(h.double())
    blocks = torch.stack([c[i : i + block, i : i + block] for i in range(0, n, block)])
    inverse = torch.linalg.inv(blocks)
    columns = c.view(n, n // block, block).permute(1, 0, 2)
    lower = torch.bmm(columns, inverse).permute(1, 0, 2).reshape(n, n)
    for i in range(0, n, block):
        lower[i : i + block, i : i + block] = 0
        lower[:i, i : i + block] = 0
    return lower.float()


def damped_split(
    h: Float[Tensor, "n n"], size: int, block: int, sigma: float, name: str
) -> tuple[Float[Tensor, "size size"], float]:
    """L - I of a factor that is padded to `size`, normalised, and damped until it is positive
    definite, and the damping that was needed.

    sigma: the smallest damping, in units of the factor's mean diagonal. block: the size of a tile.
    """
    h_padded = torch.eye(size, dtype=torch.float64, device=h.device)
    h_padded[: h.shape[0], : h.shape[0]] = normalise(h, name)
    positive_definite, damping = damp(h_padded, sigma, name)
    return block_ldl(positive_definite, block), damping


def solve_with_feedback(
    rounding: Rounding, w: Tensor, factors: Factors | None, format: Format, name: str
) -> RoundingResult:
    """Pad, split the factors, fit the format's scales, and run the feedback loop."""
    if factors is None:
        raise BadInput(
            f"{name}: {rounding!r} needs curvature; collect it with Gram, FisherA or FisherB, "
            "or use Nearest"
        )
    require_finite(w, name)
    shape = (w.shape[0], w.shape[1])
    padded_w = pad(w, format.padded(shape))
    split = rounding.split(factors, (padded_w.shape[0], padded_w.shape[1]), format.tile, name)
    assert split is not None
    params = format.fit(padded_w).stored()
    _, codes = feedback(
        padded_w,
        split.lower_out,
        split.lower_in,
        lambda tiles, rows, columns: format.snap(tiles, params, rows, columns),
        format.tile,
    )
    return RoundingResult(format.pack(codes, params, shape), split.damping, split.output_damping)


def feedback(
    w: Float[Tensor, "rows columns"],
    lower_out: Float[Tensor, "rows rows"] | None,
    lower_in: Float[Tensor, "columns columns"],
    snap: Snap,
    tile: tuple[int, int],
    schedule: str = "auto",
) -> tuple[Float[Tensor, "rows columns"], Tensor]:
    """Run the feedback loop; return the rounded values and the codes of all tiles in row-major
    order.

    lower_out, lower_in: L - I of both factors, with zero diagonal blocks; None for the identity.
    snap: maps a batch of tiles (tiles, b_o, b_i) and their positions (rows, columns), counted in
    tiles, to their values and codes. tile: (b_o, b_i). schedule: "columns" has one step for each
    column of tiles and works only without `lower_out`; "wavefront" has one step for each
    anti-diagonal of tiles; "auto" chooses "columns" when it is possible.

    Cost: 2 m n (m + n) multiplications and additions for an m x n matrix.
    """
    if schedule == "auto":
        schedule = "columns" if lower_out is None else "wavefront"
    if schedule == "columns":
        return _by_columns(w, lower_in, snap, tile)
    return _by_wavefront(w, lower_out, lower_in, snap, tile)


def _by_columns(
    w: Tensor, lower_in: Tensor, snap: Snap, tile: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    (m, n), (b_o, b_i) = w.shape, tile
    tile_rows, tile_columns = m // b_o, n // b_i
    rows = torch.arange(tile_rows, device=w.device)
    error = torch.zeros_like(w)
    values = torch.empty_like(w)
    codes: list[Tensor] = []
    for column in reversed(range(tile_columns)):
        # The columns to the right are rounded already; their errors are added to the target.
        current = slice(column * b_i, (column + 1) * b_i)
        columns_right = slice((column + 1) * b_i, n)
        target = w[:, current] + error[:, columns_right] @ lower_in[columns_right, current]
        tile_values, tile_codes = snap(
            target.view(tile_rows, b_o, b_i), rows, torch.full_like(rows, column)
        )
        values[:, current] = tile_values.view(m, b_i)
        error[:, current] = w[:, current] - values[:, current]
        codes.append(tile_codes)
    return values, torch.stack(codes[::-1], 1).flatten(0, 1)


def _by_wavefront(
    w: Tensor, lower_out: Tensor | None, lower_in: Tensor, snap: Snap, tile: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Tiles of one anti-diagonal do not depend on each other, so they are rounded in one step.

    The target of a tile at (row, column) depends on the errors E to its right, through L_I, and on
    the product P = E L_I of the rows below it, through L_O.
    """
    (m, n), (b_o, b_i) = w.shape, tile
    tile_rows, tile_columns = m // b_o, n // b_i
    tiles = w.view(tile_rows, b_o, tile_columns, b_i)
    values = torch.empty_like(w)
    value_tiles = values.view(tile_rows, b_o, tile_columns, b_i)
    error = torch.zeros(tile_rows, b_o, n, device=w.device)
    error_tiles = error.view(tile_rows, b_o, -1, b_i)
    # In these buffers the tile columns are stored from last to first, so that the tiles of an
    # anti-diagonal are a slice.
    in_reversed = lower_in.view(n, tile_columns, b_i).permute(1, 0, 2).flip(0).contiguous()
    product_reversed = torch.zeros(tile_columns, m, b_i, device=w.device)
    product_tiles = product_reversed.view(tile_columns, tile_rows, b_o, b_i)
    out_transposed = None
    if lower_out is not None:
        out_transposed = lower_out.view(m, tile_rows, b_o).permute(1, 2, 0).contiguous()
    codes: Tensor | None = None
    for diagonal in reversed(range(tile_rows + tile_columns - 1)):
        # 1. Rows and columns of the tiles of the anti-diagonal, the columns also from the end.
        first, last = max(0, diagonal - tile_columns + 1), min(tile_rows - 1, diagonal)
        rows = torch.arange(first, last + 1, device=w.device)
        columns = diagonal - rows
        reversed_columns = tile_columns - 1 - columns
        row_span = slice(first, last + 1)
        column_span = slice(int(reversed_columns[0]), int(reversed_columns[-1]) + 1)
        # 2. Feedback along the columns: the errors right of each tile, times its part of L_I - I.
        column_feedback = torch.bmm(error[row_span], in_reversed[column_span])
        target = tiles[rows, :, columns, :] + column_feedback
        # 3. Feedback along the rows: the product P below each tile, times its part of L_O - I.
        if out_transposed is not None:
            row_feedback = torch.bmm(out_transposed[row_span], product_reversed[column_span])
            target = target + row_feedback
        # 4. Round all tiles of the anti-diagonal together.
        tile_values, tile_codes = snap(target, rows, columns)
        value_tiles[rows, :, columns, :] = tile_values
        # 5. Store their errors E, and their part of P = E L_I, which is the error plus step 2.
        tile_errors = tiles[rows, :, columns, :] - tile_values
        error_tiles[rows, :, columns, :] = tile_errors
        product_tiles[reversed_columns, rows] = tile_errors + column_feedback
        if codes is None:
            shape = (tile_rows, tile_columns, *tile_codes.shape[1:])
            codes = torch.empty(shape, dtype=tile_codes.dtype, device=w.device)
        codes[rows, columns] = tile_codes
    assert codes is not None
    return values, codes.flatten(0, 1)


def pad(
    w: Float[Tensor, "rows columns"], size: tuple[int, int]
) -> Float[Tensor, "padded_rows padded_columns"]:
    """`w` as float32 with zero rows and columns appended."""
    return torch.nn.functional.pad(w.float(), (0, size[1] - w.shape[1], 0, size[0] - w.shape[0]))


def require_finite(w: Tensor, name: str) -> None:
    """Raise BadInput, naming the layer, when a weight is NaN or infinite."""
    if not bool(torch.isfinite(w).all()):
        count = int((~torch.isfinite(w)).sum())
        raise BadInput(
            f"{name}: {count} of {w.numel()} weights are not finite; the checkpoint is damaged"
        )
