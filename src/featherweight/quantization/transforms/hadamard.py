"""The randomized Hadamard transform, which distributes outliers and makes weights nearly Gaussian
(incoherence processing, QuIP#, arXiv:2402.04396).

W_r = V W U^T with U = H_n diag(S_I) and V = H_m diag(S_O) (or V = I), where H is an orthonormal
Hadamard matrix and S_I, S_O are random signs. The curvature factors become U H_I U^T and
V H_O V^T, so every quadratic loss is unchanged. The layer computes y = V^T W_r U x.

The input side is rotated in its full width. All layers that read one tensor have the same signs, so
that the tensor is rotated once. By default the output side is not rotated: with a scale for each
row this gave less KL than a rotation of the full height under LDLQ, and decoding is cheaper. Under
YAQA the full height gave up to 7 % less KL (docs/log.md); `output="full"` or `"block64"` switches
it on. Cost: n log2 n additions for each row of n numbers, plus n q multiplications for the odd
factor q of n.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from ...base.errors import UsageError
from ...base.seeds import seed_of
from ...ops import hadamard
from ..curvature.base import Factors
from ..layouts.description import ROTATIONS


@dataclass(frozen=True)
class RotatedMatrix:
    """A rotated matrix, its rotated factors, and the signs of both sides (None for a side that is
    not rotated).
    """

    w: Float[Tensor, "m n"]
    factors: Factors | None
    input_signs: Float[Tensor, " n"] | None
    output_signs: Float[Tensor, " m"] | None


@dataclass(frozen=True)
class Hadamard:
    """The rotation of all layers of a run.

    seed: of the random signs. output: the rotation of the output side, "none", "block64" (blocks of
    64 rows) or "full". Raises UsageError for another `output`.
    """

    seed: int = 0
    output: str = "none"

    def __post_init__(self) -> None:
        if self.output not in ROTATIONS:
            raise UsageError(
                f"Hadamard(output={self.output!r}): choose one of {', '.join(ROTATIONS)}"
            )

    def rotate(
        self, w: Float[Tensor, "m n"], factors: Factors | None, input_key: str, name: str
    ) -> RotatedMatrix:
        """Rotate the weights `w` and the factors of one layer.

        input_key: layers with the same key get the same input signs. name: the name of the layer,
        from which the output signs are drawn.
        """
        s_in = signs(self.seed, f"in/{input_key}", w.shape[1], w.device)
        s_out = None
        matrix = hadamard.transform(w.float() * s_in)
        if self.output != "none":
            s_out = signs(self.seed, f"out/{name}", w.shape[0], w.device)
            matrix = rotate_rows(matrix.T.contiguous() * s_out, self.output).T.contiguous()
        if factors is not None:
            output = factors.output
            if output is not None and s_out is not None:
                output = _congruence(output, s_out, self.output)
            factors = replace(
                factors,
                gram=_congruence(factors.gram, s_in, "full"),
                fisher_input=None
                if factors.fisher_input is None
                else _congruence(factors.fisher_input, s_in, "full"),
                output=output,
            )
        return RotatedMatrix(matrix, factors, s_in, s_out)


def rotate_rows(
    x: Float[Tensor, "*batch n"], kind: str, transpose: bool = False
) -> Float[Tensor, "*batch n"]:
    """x H^T along the last axis, or x H with `transpose`.

    kind: "full" for an H of the full width; "block64" for a block-diagonal H with blocks of 64
    columns and a smaller one for the remaining columns.
    """
    if kind == "full":
        return hadamard.transform(x, transpose)
    width = x.shape[-1] // 64 * 64  # columns in blocks of 64
    parts = []
    if width:
        block_rows = x[..., :width].reshape(*x.shape[:-1], -1, 64)
        parts.append(hadamard.transform(block_rows, transpose).reshape(*x.shape[:-1], width))
    if width < x.shape[-1]:
        parts.append(hadamard.transform(x[..., width:].contiguous(), transpose))
    return torch.cat(parts, -1)


def _congruence(h: Float[Tensor, "n n"], s: Float[Tensor, " n"], kind: str) -> Float[Tensor, "n n"]:
    """U H U^T with U = Hadamard diag(s)."""
    right_product = rotate_rows(h.float() * s, kind)
    return rotate_rows(right_product.T.contiguous() * s, kind)


def signs(seed: int, key: str, n: int, device: torch.device) -> Float[Tensor, " n"]:
    """n random signs of +-1, determined by `seed` and `key`. They are drawn on the CPU, so that
    they do not depend on the device.
    """
    generator = torch.Generator().manual_seed(seed_of("signs", seed, key))
    bits = torch.randint(0, 2, (n,), generator=generator, device="cpu")
    return (bits.float() * 2 - 1).to(device)


def pack_signs(s: Float[Tensor, " n"]) -> UInt8[Tensor, " bytes"]:
    """The signs as bits, which are 1 for -1; the first sign of a byte is its lowest bit."""
    bits = torch.nn.functional.pad((s < 0).to(torch.uint8), (0, -s.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=s.device)).sum(1, dtype=torch.uint8)


def unpack_signs(sign_bytes: UInt8[Tensor, " bytes"], n: int) -> Float[Tensor, " n"]:
    """The n signs that `pack_signs` stored."""
    bits = (sign_bytes[:, None] >> torch.arange(8, dtype=torch.uint8, device=sign_bytes.device)) & 1
    return 1 - 2 * bits.view(-1)[:n].float()
