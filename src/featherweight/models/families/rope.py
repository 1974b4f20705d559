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
    (types linear and llama3). `low_freq_factor`, `high_freq_factor`, `original_context`: used by
    llama3 only. `turned_share`: the share of each head that is rotated.
    """

    theta: float
    type: str = "default"
    factor: float = 1.0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 1.0
    original_context: float = 8192.0
    turned_share: float = 1.0

    def frequencies(self, head_width: int) -> NDArray[np.float32]:
        """The head_width / 2 angles, in radians, by which the pairs of a head are rotated for each
        position, float32.

        Raises Unsupported for scalings that only transformers computes.
        """
        if self.turned_share != 1.0:
            raise Unsupported(
                "only part of each head turns with its position, "
                "which the native engine does not do"
            )
        exponents = np.arange(0, head_width, 2, dtype=np.int64).astype(np.float32) / np.float32(
            head_width
        )
        base = (1.0 / np.power(np.float32(self.theta), exponents)).astype(np.float32)
        if self.type == "default":
            return base
        if self.type == "linear":
            return (base / np.float32(self.factor)).astype(np.float32)
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
