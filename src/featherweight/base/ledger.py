"""The ledger of bits: counts the stored bits of compressed weights.

Three figures are always given together and have these names everywhere:

    bpw_codes    bits of the codes over the quantized weights (what papers print)
    bpw_layers   bits of everything that is stored for them (codes, scales, zero points, signs,
                 padding, ...) over the same weights
    bpw_file     8 x the bytes of the weight files over all parameters of the model (a tied table
                 counts once)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Ledger:
    """The bits that are stored for `weights` weights, by kind.

    `bits_by_kind`: kind -> bits. The usual kinds are codes, scales, zeros, signs, tables, masks,
    low_rank and padding. A format that stores something else uses another name, and reports show
    this name.
    """

    weights: int
    bits_by_kind: Mapping[str, int] = field(default_factory=dict)

    def __add__(self, other: Ledger) -> Ledger:
        kinds = dict.fromkeys([*self.bits_by_kind, *other.bits_by_kind])
        return Ledger(
            self.weights + other.weights,
            {
                kind: self.bits_by_kind.get(kind, 0) + other.bits_by_kind.get(kind, 0)
                for kind in kinds
            },
        )

    @property
    def total(self) -> int:
        """The sum of all kinds."""
        return sum(self.bits_by_kind.values())

    @property
    def bpw_codes(self) -> float:
        """Bits of codes for each weight."""
        return self.bits_by_kind.get("codes", 0) / self.weights if self.weights else 0.0

    @property
    def bpw_layers(self) -> float:
        """All stored bits for each weight."""
        return self.total / self.weights if self.weights else 0.0


def bpw_file(file_bytes: int, num_parameters: int) -> float:
    """8 x the bytes of the weight files, divided by the number of all parameters, with embeddings
    and head.
    """
    return 8 * file_bytes / num_parameters
