"""The layout of `Int`: codes of 2 to 8 bits. formats/int.py describes the format."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...base.errors import UsageError
from ...base.spec import ALWAYS_SHOWN
from .scaled_codes import ScaledCodesLayout, check_group


@dataclass(frozen=True, repr=False)
class IntLayout(ScaledCodesLayout):
    """Integers with scales.

    bits: 2 to 8 for each weight. group: number of columns that share a scale; None for whole rows.
    symmetric: codes are levels plus 2^(bits - 1); otherwise every group stores a zero point.
    portable: scales have few significant bits, so that exports store them exactly; asymmetric codes
    allow this up to 4 bits only. Raises UsageError for other values.
    """

    bits: int = field(default=4, metadata=ALWAYS_SHOWN)
    group: int | None = None
    symmetric: bool = True
    portable: bool = False

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise UsageError(f"Int(bits={self.bits}): bits must be 2 to 8")
        check_group("Int", self.group)
        if self.portable and not self.symmetric and self.bits > 4:
            raise UsageError(
                f"Int(bits={self.bits}, symmetric=False, portable=True): no other program's file "
                "holds that"
            )

    @property
    def code_bits(self) -> int:
        return self.bits

    @property
    def zero_point(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def has_zeros(self) -> bool:
        return not self.symmetric
