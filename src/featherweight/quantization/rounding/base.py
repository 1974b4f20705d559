"""One feedback loop over tiles, shared by every rounding that looks at curvature.

Minimised: tr(H_O D H_I D^T) over D = W - W_hat, with H = L D L^T by blocks of the format's tile
(unit block-lower triangular L). Rounding W + L_O^T D L_I - D tile by tile, from the last tile back,
makes L_O^T D L_I = -noise, so the loss becomes tr(D_O noise D_I noise^T). H_O = I leaves the column
recursion known as LDLQ (QuIP, arXiv:2307.13304), GPTQ or Babai's nearest plane; with both sides it
is YAQA's (arXiv:2505.22988), equal to GPTQ on kron(H_O, H_I).

The buffer P = D L_I turns the m^2 n^2 / 2b multiplications of the literal form into m n (m + n)
with equal results. Nothing here knows a format: `snap` is whatever chooses numbers for a batch of
tiles.
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

Snap = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RoundingResult:
    """A rounded matrix with the damping that its factors needed (None where that side was not
    used).
    """

    weight: QWeight
    damping: float | None = None
    output_damping: float | None = None


@dataclass(frozen=True)
class Split:
    """L - I of both factors (None: that side is the identity), with the damping each needed."""

    lower_in: Float[Tensor, "columns columns"]
    lower_out: Float[Tensor, "rows rows"] | None = None
    damping: float | None = None
    output_damping: float | None = None


class Rounding(ABC):
    """Abstract base; implementations are final frozen dataclasses that see tensors only, and
    compute on their device.

    `needs_curvature` says whether `solve` needs factors; a layer without any is then rounded to
    nearest.
    """

    needs_curvature: ClassVar[bool]

    def split(
        self, factors: Factors, padded: tuple[int, int], tile: tuple[int, int], name: str
    ) -> Split | None:
        """The feedback that this rounding would use; None when it uses none."""
        return None

    @abstractmethod
    def solve(
        self,
        w: Float[Tensor, "rows columns"],
        factors: Factors | None,
        format: Format,
        name: str = "the matrix",
    ) -> RoundingResult:
        """Choose numbers of `format` for `w`; `name` appears in errors only."""


def block_ldl(h: Float[Tensor, "n n"], block: int) -> Float[Tensor, "n n"]:
    """L - I of H = L D L^T with unit diagonal blocks of size `block` (float64 in, float32 out).

    n must be a multiple of `block`. Raises torch.linalg.LinAlgError when H is not positive
    definite.
    """
    n = h.shape[0]
    c = torch.linalg.cholesky(h.double())
    blocks = torch.stack([c[i : i + block, i : i + block] for i in range(0, n, block)])
    inverse = torch.linalg.inv(blocks)
    columns = c.view(n, n // block, block).permute(1, 0, 2)
    lower = torch.bmm(columns, inverse).permute(1, 0, 2).reshape(n, n)
    for i in range(0, n, block):
        lower[i : i + block, i : i + block] = 0
        lower[:i, i : i + block] = 0
    return lower.float()


def prepared(
    h: Float[Tensor, "n n"], size: int, block: int, sigma: float, name: str
) -> tuple[Tensor, float]:
    """Pad to `size`, normalise, damp until Cholesky succeeds, and split:

    (L - I, the damping used).
    """
    padded = torch.eye(size, dtype=torch.float64, device=h.device)
    padded[: h.shape[0], : h.shape[0]] = normalise(h, name)
    damped, used = damp(padded, sigma, name)
    return block_ldl(damped, block), used


def solve_with_feedback(
    rounding: Rounding, w: Tensor, factors: Factors | None, format: Format, name: str
) -> RoundingResult:
    """Pad, split the factors, fit the format's scales, and run the feedback loop."""
    if factors is None:
        raise BadInput(
            f"{name}: {rounding!r} needs curvature; collect it with Gram, FisherA or FisherB, or use Nearest"
        )
    require_finite(w, name)
    shape = (w.shape[0], w.shape[1])
    padded = pad(w, format.padded(shape))
    split = rounding.split(factors, (padded.shape[0], padded.shape[1]), format.tile, name)
    assert split is not None
    params = format.fit(padded).stored()
    _, codes = feedback(
        padded,
        split.lower_out,
        split.lower_in,
        lambda x, r, c: format.snap(x, params, r, c),
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
    """Rounded values and the codes of all tiles, row-major.

    `lower_*` are L - I with zero diagonal blocks. `snap(x, rows, columns)` gets a batch of tiles
    (tiles, b_o, b_i) and their indices. Schedule "columns" (one step a tile column; only without
    `lower_out`) or "wavefront" (one step an anti-diagonal); "auto" takes the first where it may.
    Flops: 2 m n (m + n).
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
    count_rows, count_columns = m // b_o, n // b_i
    rows = torch.arange(count_rows, device=w.device)
    error = torch.zeros_like(w)
    values = torch.empty_like(w)
    codes: list[Tensor] = []
    for column in reversed(range(count_columns)):
        here = slice(column * b_i, (column + 1) * b_i)
        after = slice((column + 1) * b_i, n)
        target = w[:, here] + error[:, after] @ lower_in[after, here]
        snapped, code = snap(target.view(count_rows, b_o, b_i), rows, torch.full_like(rows, column))
        values[:, here] = snapped.view(m, b_i)
        error[:, here] = w[:, here] - values[:, here]
        codes.append(code)
    return values, torch.stack(codes[::-1], 1).flatten(0, 1)


def _by_wavefront(
    w: Tensor, lower_out: Tensor | None, lower_in: Tensor, snap: Snap, tile: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    (m, n), (b_o, b_i) = w.shape, tile
    count_rows, count_columns = m // b_o, n // b_i
    tiles = w.view(count_rows, b_o, count_columns, b_i)
    error = torch.zeros(count_rows, b_o, n, device=w.device)
    # Column tiles are kept in reverse order, so that an anti-diagonal is a plain slice of every
    # buffer.
    in_reversed = lower_in.view(n, count_columns, b_i).permute(1, 0, 2).flip(0).contiguous()
    out_transposed = None
    if lower_out is not None:
        out_transposed = lower_out.view(m, count_rows, b_o).permute(1, 2, 0).contiguous()
    product_reversed = torch.zeros(count_columns, m, b_i, device=w.device)
    values = torch.empty_like(w)
    value_tiles, error_tiles = (
        values.view(count_rows, b_o, count_columns, b_i),
        error.view(count_rows, b_o, -1, b_i),
    )
    product_tiles = product_reversed.view(count_columns, count_rows, b_o, b_i)
    codes: Tensor | None = None
    for diagonal in reversed(range(count_rows + count_columns - 1)):
        first, last = max(0, diagonal - count_columns + 1), min(count_rows - 1, diagonal)
        rows = torch.arange(first, last + 1, device=w.device)
        columns = diagonal - rows
        back = count_columns - 1 - columns
        span, span_back = slice(first, last + 1), slice(int(back[0]), int(back[-1]) + 1)
        carried = torch.bmm(error[span], in_reversed[span_back])
        target = tiles[rows, :, columns, :] + carried
        if out_transposed is not None:
            target = target + torch.bmm(out_transposed[span], product_reversed[span_back])
        snapped, code = snap(target, rows, columns)
        value_tiles[rows, :, columns, :] = snapped
        remaining = tiles[rows, :, columns, :] - snapped
        error_tiles[rows, :, columns, :] = remaining
        product_tiles[back, rows] = remaining + carried
        if codes is None:
            codes = torch.empty(
                (count_rows, count_columns, *code.shape[1:]), dtype=code.dtype, device=code.device
            )
        codes[rows, columns] = code
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
        bad = int((~torch.isfinite(w)).sum())
        raise BadInput(
            f"{name}: {bad} of {w.numel()} weights are not finite; the checkpoint is damaged"
        )
