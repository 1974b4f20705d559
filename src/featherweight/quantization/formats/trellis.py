"""A tile of 16 x 16 weights as one path through a bitshift trellis: `bits` bits a weight, coded together.

The idea (QTIP, arXiv:2406.11235): a state of L bits shifts in `bits` new bits a weight and emits f(state); the Viterbi
algorithm finds the path nearest to the tile. On N(0,1) this reaches an error within 11 % of the Shannon bound at 2 bits
where scalars lose 90 %. Paths bite their tail, so a tile takes exactly 256 * bits bits. Each row of the matrix has one
fp16 scale. Streams run from the last weight of a tile to its first, so that a decoder reads bytes forward; they lie in
the 64-lane order of `ops.lanes` (rows and columns padded to 64).
Cost: 2 Viterbi passes of 2^L additions a weight to encode; one table look-up a weight to decode.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ...base.bits import Bits
from ...base.errors import UsageError
from ...ops import lanes, matmul, trellis
from . import codes as code_functions
from .base import Format, Params, QWeight

TILE = 16
BLOCK_ROWS = 256  # rows of a block in lane order
# rms of what the encoder is given, in units of the code: measured optimum on N(0,1) (benchmarks/rounding.py).
GAIN = {1: 1.13, 2: 0.97, 3: 0.93, 4: 0.86}


@dataclass(frozen=True)
class Trellis(Format):
    """1 to 4 bits a weight; `L` bits of state (12 is the default, 14 the best that pays); `code` g, 1mad or 3inst."""

    bits_per_code: int
    L: int
    code: str

    def __init__(self, bits: int = 2, L: int = 12, code: str = "g") -> None:
        if bits not in (1, 2, 3, 4):
            raise UsageError(f"Trellis(bits={bits}): bits must be 1, 2, 3 or 4")
        if code not in code_functions.NAMES:
            raise UsageError(f"Trellis(code={code!r}): codes are {', '.join(code_functions.NAMES)}")
        if code == "g" and (bits, L) not in code_functions.MATRICES:
            known = sorted(size for rate, size in code_functions.MATRICES if rate == bits)
            raise UsageError(f"Trellis(bits={bits}, L={L}): the g code has L = {', '.join(map(str, known))}")
        if not 8 <= L <= 16:
            raise UsageError(f"Trellis(L={L}): L must be 8 to 16")
        object.__setattr__(self, "bits_per_code", bits)
        object.__setattr__(self, "L", L)
        object.__setattr__(self, "code", code)

    def __repr__(self) -> str:
        parts = [f"bits={self.bits_per_code}"]
        parts += [f"L={self.L}"] if self.L != 12 else []
        parts += [f"code={self.code!r}"] if self.code != "g" else []
        return f"Trellis({', '.join(parts)})"

    @property
    def tile(self) -> tuple[int, int]:
        return (TILE, TILE)

    def values(self) -> Float[Tensor, " states"]:
        """The number that each state emits, of unit variance."""
        return code_functions.values(self.code, self.bits_per_code, self.L)

    def constants(self) -> dict[str, list[int]]:
        if self.code != "g":
            return {}
        matrix = code_functions.MATRICES[self.bits_per_code, self.L]
        return {"matrix": list(matrix), "table": code_functions.table_int8(self.bits_per_code).tolist()}

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        return (-(-shape[0] // 64) * 64, -(-shape[1] // 64) * 64)

    def check(self, shape: tuple[int, int], name: str) -> None:
        return None

    def fit(self, w: Float[Tensor, "rows columns"], weight: Float[Tensor, " columns"] | None = None) -> Params:
        # Zero columns are padding: they do not count in a row's rms.
        used = (w != 0).any(0).sum().clamp(min=1)
        rms = (w.float().square().sum(1) / used).sqrt()
        scale = (rms / GAIN[self.bits_per_code]).clamp(max=65504.0).half()
        return Params((w.shape[0], w.shape[1]), {"scale": scale})

    def snap(self, x: Tensor, params: Params, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        scale = params.tensors["scale"].float().view(-1, TILE)[rows].unsqueeze(-1)
        normalised = torch.where(scale > 0, x / scale, torch.zeros_like(x))
        streams = trellis.encode(normalised.reshape(-1, TILE * TILE), self.values(), self.L, self.bits_per_code)
        decoded = trellis.decode(streams, self.values(), self.L, self.bits_per_code)
        return decoded.view(-1, TILE, TILE) * scale, streams

    def pack(self, codes: Tensor, params: Params, shape: tuple[int, int]) -> QWeight:
        rows, columns = self.padded(shape)
        streams = codes.view(rows // TILE, columns // TILE, -1)
        return QWeight(self, shape, {"codes": lanes.trellis_to_lanes(streams), "scale": params.tensors["scale"]})

    def unpack(self, weight: QWeight) -> Float[Tensor, "rows columns"]:
        rows, columns = self.padded(weight.shape)
        dense = matmul.trellis_dense(
            weight.tensors["codes"],
            rows,
            columns,
            self.values(),
            self.L,
            self.bits_per_code,
            weight.tensors["scale"],
        )
        return dense[: weight.shape[0], : weight.shape[1]]

    def unpack_rows(self, weight: QWeight, rows: Int64[Tensor, " count"]) -> Float[Tensor, "count columns"]:
        """Decodes the blocks of 256 rows (contiguous in lane order) that hold the wanted ones."""
        if rows.numel() and int(rows.max()) >= weight.shape[0]:
            raise IndexError(f"row {int(rows.max())} of a matrix of {weight.shape[0]} rows")
        height, columns = self.padded(weight.shape)
        codes, scale, values = weight.tensors["codes"], weight.tensors["scale"], self.values()
        row_bytes = columns * self.bits_per_code // 8
        found = torch.empty(rows.numel(), weight.shape[1], device=codes.device)
        blocks = rows // BLOCK_ROWS
        for block in blocks.unique().tolist():
            first, last = block * BLOCK_ROWS, min((block + 1) * BLOCK_ROWS, height)
            part, scales = codes[first * row_bytes : last * row_bytes], scale[first:last]
            dense = matmul.trellis_dense(part, last - first, columns, values, self.L, self.bits_per_code, scales)
            here = blocks == block
            found[here] = dense[rows[here] - first, : weight.shape[1]]
        return found

    def stored(self, shape: tuple[int, int]) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        rows, columns = self.padded(shape)
        return {
            "codes": ((rows * columns * self.bits_per_code // 8,), torch.uint8),
            "scale": ((rows,), torch.float16),
        }

    def bits(self, shape: tuple[int, int]) -> Bits:
        rows, columns = self.padded(shape)
        weights = shape[0] * shape[1]
        padding = (rows * columns - weights) * self.bits_per_code + (rows - shape[0]) * 16
        return Bits(weights, weights * self.bits_per_code, 16 * shape[0], padding=padding)
