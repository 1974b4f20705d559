"""The layout of `Ternary`: -1, 0 and 1 as codes 0, 1 and 2 of two bits; see formats/ternary.py for
the idea.
"""

from __future__ import annotations

from dataclasses import dataclass

from .scaled_codes import ScaledCodesLayout, check_group


@dataclass(frozen=True, repr=False)
class TernaryLayout(ScaledCodesLayout):
    """-1, 0 or 1 times a scale; `group=None` shares one scale across a whole row.

    Code 3 stands for no number.
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
