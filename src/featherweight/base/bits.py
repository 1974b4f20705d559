"""The ledger of bits: one place that counts what a compressed weight costs.

Three figures, always together and named so everywhere:
`bpw_codes`   codes over the quantized weights (what papers print);
`bpw_layers`  codes + scales + zeros + signs + tables + padding, over the same weights;
`bpw_file`    8 x weight-file bytes over all parameters of the model (tied tables counted once).
"""

from __future__ import annotations

from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Bits:
    """Bits stored for `weights` weights, by what they are spent on."""

    weights: int
    codes: int = 0
    scales: int = 0
    zeros: int = 0
    signs: int = 0
    tables: int = 0
    padding: int = 0

    def __add__(self, other: Bits) -> Bits:
        return Bits(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def total(self) -> int:
        return self.codes + self.scales + self.zeros + self.signs + self.tables + self.padding

    @property
    def bpw_codes(self) -> float:
        return self.codes / self.weights if self.weights else 0.0

    @property
    def bpw_layers(self) -> float:
        return self.total / self.weights if self.weights else 0.0


def bpw_file(file_bytes: int, num_parameters: int) -> float:
    """8 x the bytes of the weight files over all parameters, embeddings and head included."""
    return 8 * file_bytes / num_parameters
