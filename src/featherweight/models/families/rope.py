"""Rotary position embeddings: the settings of one kind of layer, and the frequencies that follow
from them.

The native engine needs the frequencies in float32, computed in the same order of operations as in
transformers, so that they are equal. GGUF files hold the base and, for Llama 3, the divisor of each
frequency.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...base.errors import Unsupported


@dataclass(frozen=True)
class Rope:
    """The rotary settings of the layers of one kind.

    `theta`: the base. `type`: the `rope_type` of transformers. `factor`: divides the frequencies
    (types linear and llama3). `low_freq_factor`, `high_freq_factor`: used by llama3 only.
    `original_context`: used by llama3 and longrope. `turned_share`: the share of each head that is
    rotated. `short_factors`, `long_factors`: longrope's divisors of the frequencies, for texts of
    up to `original_context` tokens and for longer ones. `attention_factor`: of cosines and sines.
    """

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_context: float = 8192.0
    turned_share: float = 1.0
    short_factors: tuple[float, ...] = ()
    long_factors: tuple[float, ...] = ()
    attention_factor: float = 1.0

    @property
    def num_positions(self) -> int:
        """The length of the texts for which `frequencies` are right; 0 for all."""
        return int(self.original_context) if self.type == "longrope" else 0

    def rotary_width(self, head_width: int) -> int:
        """The number of leading numbers of a head that turn with its position.

        Raises Unsupported when there are none.
        """
        num_frequencies = (int(head_width * self.turned_share) + 1) // 2
        if not 0 < 2 * num_frequencies <= head_width:
            raise Unsupported(f"heads of {head_width} numbers of which {self.turned_share:g} turn")
        return 2 * num_frequencies

    def frequencies(self, head_width: int) -> NDArray[np.float32]:
        """The angles, in radians, by which the rotary_width / 2 pairs of a head are rotated for
        each position, float32; those of longrope are for texts of up to `num_positions`.

        Raises Unsupported for scalings that only transformers computes.
        """
        self.rotary_width(head_width)
        dims = np.float32(int(head_width * self.turned_share))
        exponents = np.arange(0, dims, 2, dtype=np.int64).astype(np.float32) / dims
        powers = np.power(np.float32(self.theta), exponents)
        base = (1.0 / powers).astype(np.float32)
        if self.type == "default":
            return base
        if self.type == "linear":
            return (base / np.float32(self.factor)).astype(np.float32)
        if self.type == "longrope":
            return (1.0 / (np.array(self.short_factors, np.float32) * powers)).astype(np.float32)
        if self.type != "llama3":
            raise Unsupported(f"rotary positions of type {self.type!r} run on the PyTorch engine")
        return self._llama3_frequencies(base)

    def _llama3_frequencies(self, base: NDArray[np.float32]) -> NDArray[np.float32]:
        # Llama 3.1 (arXiv:2407.21783): frequencies of long wavelengths are divided by `factor`,
        # those of short ones do not change, and those of medium ones are interpolated between both.
        low, high, context = self.low_freq_factor, self.high_freq_factor, self.original_context
        wavelength = (2 * math.pi / base).astype(np.float32)
        share = (context / wavelength - low) / (high - low)
        blend = (1 - share) * base / self.factor + share * base
        with_slow_waves = np.where(wavelength > context / low, base / self.factor, base)
        is_medium = (wavelength >= context / high) & (wavelength <= context / low)
        return np.where(is_medium, blend, with_slow_waves).astype(np.float32)

    def llama3_divisors(self, head_width: int) -> NDArray[np.float64]:
        """Llama 3's divisors of the (head_width / 2) frequencies, as GGUF files store them."""
        low, high = self.low_freq_factor, self.high_freq_factor
        wavelength = 2 * math.pi * self.theta ** (np.arange(0, head_width, 2) / head_width)
        share = np.clip((self.original_context / wavelength - low) / (high - low), 0, 1)
        return np.asarray(1 / ((1 - share) / self.factor + share))


def longrope_attention(factor: float, original_context: float) -> float:
    """LongRoPE's factor of cosines and sines (arXiv:2402.13753) in models whose context is `factor`
    times `original_context`.
    """
    if factor <= 1:
        return 1.0
    return math.sqrt(1 + math.log(factor) / math.log(original_context))
