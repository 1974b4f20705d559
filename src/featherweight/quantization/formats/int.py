"""Integers with a scale for each group: value = scale * (code - zero).

A code of `bits` bits chooses one of 2^bits equidistant levels; `group` columns of a row share one
fp16 scale (and, when asymmetric, one uint8 zero point). Symmetric levels are -2^(bits-1) ...
2^(bits-1)-1, stored with 2^(bits-1) added. The codes can be copied one to one into the formats of
other programs (GGUF Q4_0 and Q8_0, compressed-tensors "pack-quantized").

`fit` minimises the squared error over a grid of scales, weighted by column when weights are given.
A scale that only follows from the largest magnitude is much worse below 4 bits: on N(0, 1) at 2
bits the error is 0.43 instead of 0.149. Cost of `fit`: one pass over the matrix for each of 48 (up
to 4 bits) or 12 candidate scales.

With `portable`, scales have few enough significant bits to be exact in all readers: 8 bits when
symmetric, because bf16 and fp16 both hold such a scale; 11 - bits when asymmetric, because fp16
then also holds scale * zero, the minimum of a GGUF block. The scales are rounded before the codes
are chosen, so that the codes compensate for the rounding. They are stored as fp16 like all scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..layouts.int import IntLayout
from .scaled_codes import SMALLEST_SCALE, ScaledCodes


@dataclass(frozen=True, repr=False)
class Int(IntLayout, ScaledCodes):
    """Integers of 2 to 8 bits with scales; fields and errors as in `IntLayout`."""

    @property
    def level_range(self) -> tuple[int, int]:
        zero, top = self.zero_point, (1 << self.bits) - 1
        return (-zero, top - zero) if self.symmetric else (-top, top)

    def fit_groups(self, weights: Tensor, importance: Tensor) -> dict[str, Tensor]:
        """The scale with the least squared error among a grid of candidates, for every row and
        group. Each candidate is rounded to a scale that can be stored before it is tried.
        """
        top, middle = 2**self.bits - 1, float(self.zero_point)
        low, high = weights.amin(-1).clamp(max=0), weights.amax(-1).clamp(min=0)
        full_scale = torch.maximum(-low, high) / middle if self.symmetric else (high - low) / top
        least_error = torch.full_like(full_scale, torch.inf)
        best_scale, best_zero = full_scale.clone(), torch.full_like(full_scale, middle)
        for shrink in self._shrink_factors(weights.device):
            scale = self.storable_scale(full_scale * shrink)
            zero = (
                torch.full_like(full_scale, middle)
                if self.symmetric
                else (-low / scale).round().clamp(0, top)
            )
            # One buffer holds first the codes, then the levels, the values and the errors, because
            # `weights` is a large part of the matrix.
            codes = (weights / scale[..., None]).add_(zero[..., None]).round_().clamp_(0, top)
            errors = (
                codes.sub_(zero[..., None])
                .mul_(scale[..., None])
                .sub_(weights)
                .square_()
                .mul_(importance)
            )
            error = errors.sum(-1)
            better = error < least_error
            least_error = torch.where(better, error, least_error)
            best_scale = torch.where(better, scale, best_scale)
            best_zero = torch.where(better, zero, best_zero)
        return {"scale": best_scale} | ({} if self.symmetric else {"zero": best_zero})

    def _shrink_factors(self, device: torch.device) -> Tensor:
        """Candidate scales, as multiples of the scale that represents the largest magnitude."""
        largest = 1.1 if self.symmetric else 1.0
        smallest, steps = (0.25, 48) if self.bits <= 4 else (0.8, 12)
        return torch.linspace(largest, smallest, steps, device=device)

    def storable_scale(self, scale: Tensor) -> Tensor:
        if not self.portable:
            return super().storable_scale(scale)
        significant_bits = 8 if self.symmetric else 11 - self.bits
        # The limit is smaller than the largest fp16 number, which would round to 2^16 at 8
        # significant bits. For asymmetric codes scale * zero must fit, too.
        largest = 2.0 ** (15 if self.symmetric else 15 - self.bits)
        mantissa, exponent = torch.frexp(scale.clamp(min=SMALLEST_SCALE, max=largest))
        return torch.ldexp((mantissa * 2**significant_bits).round(), exponent - significant_bits)

    def round_to_codes(
        self, w: Tensor, scale: Tensor, zero: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        codes = (w / scale + zero).round().clamp(0, 2**self.bits - 1)
        return (codes - zero) * scale, codes.to(torch.uint8)
