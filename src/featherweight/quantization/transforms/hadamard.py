"""Incoherence: the randomized Hadamard transform makes weights look Gaussian and spreads outliers.

W_r = V W U^T with U = H_n diag(S_I) and V = H_m diag(S_O) (or I). The curvature is transformed by
congruence, so every quadratic loss is unchanged, and the layer computes y = V^T W_r U x. Signs are
applied before the Hadamard matrix (QuIP#, arXiv:2402.04396).

The input side is rotated in its full width, with the same signs for all layers that read one
tensor, so that it is rotated once. The output side is not rotated by default: with a scale for each
row this measured better than a full-height rotation under LDLQ, and a decoder has less to compute.
Under YAQA the full height measured up to 7 % less KL (docs/log.md): choose `output="full"` or
`"block64"` where that is worth its cost. Cost: n log2 n additions for each row of n numbers, plus n
q products for the odd factor q of n.
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
    """A rotated matrix and its factors, with the signs of both sides (None: that side is not
    rotated).
    """

    w: Float[Tensor, "m n"]
    factors: Factors | None
    input_signs: Float[Tensor, " n"] | None
    output_signs: Float[Tensor, " m"] | None


@dataclass(frozen=True)
class Hadamard:
    """`seed` draws the signs; `output` is "none", "block64" or "full"."""

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
        """Rotate the weights and the factors of one layer.

        Layers with equal `input_key` get the same input signs; `name` seeds the output signs.
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

    kind: "full", H of the full width; "block64", diagonal blocks of 64 and one for the other
    columns.
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
    """n signs of +-1 from (seed, key), drawn on the CPU so that all machines give the same ones."""
    generator = torch.Generator().manual_seed(seed_of("signs", seed, key))
    bits = torch.randint(0, 2, (n,), generator=generator, device="cpu")
    return (bits.float() * 2 - 1).to(device)


def pack_signs(s: Float[Tensor, " n"]) -> UInt8[Tensor, " bytes"]:
    """Signs as bits: set for -1, eight to a byte from the lowest bit on."""
    bits = torch.nn.functional.pad((s < 0).to(torch.uint8), (0, -s.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=s.device)).sum(1, dtype=torch.uint8)


def unpack_signs(sign_bytes: UInt8[Tensor, " bytes"], n: int) -> Float[Tensor, " n"]:
    """The n signs that `pack_signs` stored."""
    bits = (sign_bytes[:, None] >> torch.arange(8, dtype=torch.uint8, device=sign_bytes.device)) & 1
    return 1 - 2 * bits.view(-1)[:n].float()
