"""The layout of `Ternary`: the values -1, 0 and 1 as 2-bit codes 0, 1 and 2. formats/ternary.py
describes the format.
"""

from __future__ import annotations

from dataclasses import dataclass

from .scaled_codes import ScaledCodesLayout, check_group


@dataclass(frozen=True, repr=False)
class TernaryLayout(ScaledCodesLayout):
    """Weights of -1, 0 or 1 times a scale.

    group: number of columns that share a scale; None for whole rows. Raises UsageError for other
    values.
    """

    group: int | None = None

    def __post_init__(self) -> None:
        check_group("Ternary", self.group)

    @property
    def code_bits(self) -> int:
        return 2

    @property
    def zero_point(self) -> int:
        return 1

    @property
    def has_zeros(self) -> bool:
        return False
