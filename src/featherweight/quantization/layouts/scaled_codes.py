"""The common layout of `Int` and `Ternary`: integer codes with a scale for each group of columns.

A weight is scale * (code - zero). Codes are in the lane order of `ops.lanes` (blocks of 16 rows and
32 columns), so rows are padded to a multiple of 16 and columns to a multiple of 32. Scales are
fp16, in blocks of 16 rows: (rows / 16, groups, 16). If a layout stores zero points, they are uint8
in the same order. Padding columns belong to the last group; they are zero, so they do not change
its scale.
"""

from __future__ import annotations

from abc import abstractmethod

from ...base.errors import UsageError
from ...base.ledger import Ledger
from .base import Decoding, Layout, StoredTensors, round_up

SCALE_BITS, ZERO_BITS = 16, 8


class ScaledCodesLayout(Layout):
    """Abstract base of layouts with codes of `code_bits` bits and one scale for `group` columns of
    a row (None: for the whole row).
    """

    group: int | None

    @property
    @abstractmethod
    def code_bits(self) -> int:
        """Bits of a code."""

    @property
    @abstractmethod
    def zero_point(self) -> int:
        """The code of the value zero, for layouts that store no zero points."""

    @property
    @abstractmethod
    def has_zeros(self) -> bool:
        """Whether a zero point is stored for every group."""

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        return round_up(shape[0], 16), round_up(shape[1], 32)

    def num_groups(self, columns: int) -> int:
        """The number of scales in a row of `columns` columns."""
        return 1 if self.group is None else -(-columns // self.group)

    def check(self, shape: tuple[int, int], name: str) -> None:
        if self.group is not None and shape[1] % self.group:
            divisors = [size for size in (128, 64, 32, 16, 8, 4, 2) if shape[1] % size == 0]
            hint = " or ".join(map(str, divisors[:3])) if divisors else "group=None"
            raise UsageError(
                f"{name} has {shape[1]} inputs, not a multiple of group={self.group}; try {hint}"
            )

    def stored(self, shape: tuple[int, int]) -> StoredTensors:
        rows, columns = self.padded(shape)
        blocks = (rows // 16, self.num_groups(columns), 16)
        tensors: StoredTensors = {
            "codes": ((rows * columns * self.code_bits // 8,), "U8"),
            "scale": (blocks, "F16"),
        }
        return tensors | ({"zero": (blocks, "U8")} if self.has_zeros else {})

    def ledger(self, shape: tuple[int, int]) -> Ledger:
        rows, columns = self.padded(shape)
        weights, groups = shape[0] * shape[1], self.num_groups(columns)
        zero_bits = ZERO_BITS if self.has_zeros else 0
        bits_by_kind = {"codes": weights * self.code_bits, "scales": SCALE_BITS * shape[0] * groups}
        if zero_bits:
            bits_by_kind["zeros"] = zero_bits * shape[0] * groups
        padding_rows = (rows - shape[0]) * groups * (SCALE_BITS + zero_bits)
        bits_by_kind["padding"] = (rows * columns - weights) * self.code_bits + padding_rows
        return Ledger(weights, bits_by_kind)

    def decoding(self, shape: tuple[int, int]) -> Decoding:
        columns = self.padded(shape)[1]
        group = columns if self.num_groups(columns) == 1 else self.group or columns
        return Decoding("int", self.code_bits, group=group, zero=self.zero_point)


def check_group(format: str, group: object) -> None:
    """Raise UsageError unless `group` is a positive number of columns, or None."""
    if group is not None and (type(group) is not int or group < 1):
        raise UsageError(
            f"{format}(group={group}): group must be a positive number of columns, or None for "
            "whole rows"
        )
