"""Incoherence: the randomized Hadamard transform makes weights look Gaussian and spreads outliers.

W_r = V W U^T with U = H_n diag(S_I) and V = H_m diag(S_O) (or I); curvature follows by congruence,
so every quadratic loss is unchanged, and the layer computes y = V^T W_r U x. Signs come before the
Hadamard (QuIP#, arXiv:2402.04396).

Input side: full width, signs shared by the layers that read one tensor, so that it is rotated once.
Output side: none by default: with a scale a row it measured better than a full-height rotation
under LDLQ, and a decoder has nothing to undo. Under YAQA the full height measured up to 7 % less KL
(docs/log.md): `output="full"`, or `"block64"`, where that is worth it. Cost: n log2 n additions a
row, plus n q for the odd factor q of n.
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
    """A rotated matrix and its factors, with the signs that undo it (None where that side is not
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
        """Rotate one layer.

        Layers with equal `input_key` share their input signs; `name` draws the output's.
        """
        s_in = signs(self.seed, f"in/{input_key}", w.shape[1], w.device)
        s_out = (
            None if self.output == "none" else signs(self.seed, f"out/{name}", w.shape[0], w.device)
        )
        rotated = hadamard.transform(w.float() * s_in)
        if s_out is not None:
            rotated = rotate_rows(rotated.T.contiguous() * s_out, self.output).T.contiguous()
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
        return RotatedMatrix(rotated, factors, s_in, s_out)


def rotate_rows(
    x: Float[Tensor, "*batch n"], kind: str, transpose: bool = False
) -> Float[Tensor, "*batch n"]:
    """x H^T along the last axis, for a full-width H or one of 64-wide diagonal blocks (and what is
    left over).
    """
    if kind == "full":
        return hadamard.transform(x, transpose)
    whole = x.shape[-1] // 64 * 64
    parts = []
    if whole:
        head = x[..., :whole].reshape(*x.shape[:-1], -1, 64)
        parts.append(hadamard.transform(head, transpose).reshape(*x.shape[:-1], whole))
    if whole < x.shape[-1]:
        parts.append(hadamard.transform(x[..., whole:].contiguous(), transpose))
    return torch.cat(parts, -1)


def _congruence(h: Float[Tensor, "n n"], s: Float[Tensor, " n"], kind: str) -> Float[Tensor, "n n"]:
    """U H U^T with U = Hadamard diag(s)."""
    half = rotate_rows(h.float() * s, kind)
    return rotate_rows(half.T.contiguous() * s, kind)


def signs(seed: int, key: str, n: int, device: torch.device) -> Float[Tensor, " n"]:
    """n signs of +-1 from (seed, key), the same on every machine: they are drawn on the CPU."""
    generator = torch.Generator().manual_seed(seed_of("signs", seed, key))
    bits = torch.randint(0, 2, (n,), generator=generator, device="cpu")
    return (bits.float() * 2 - 1).to(device)


def pack_signs(s: Float[Tensor, " n"]) -> UInt8[Tensor, " bytes"]:
    """One bit a sign (1 is negative), lowest bit first."""
    bits = torch.nn.functional.pad((s < 0).to(torch.uint8), (0, -s.numel() % 8)).view(-1, 8)
    return (bits << torch.arange(8, dtype=torch.uint8, device=s.device)).sum(1, dtype=torch.uint8)


def unpack_signs(packed: UInt8[Tensor, " bytes"], n: int) -> Float[Tensor, " n"]:
    """The signs that `pack_signs` stored."""
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return 1 - 2 * bits.view(-1)[:n].float()
