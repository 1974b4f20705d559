"""How numbers are written: as many digits as they carry, one unit a figure, and a word where there
is no number.

Three significant digits unless said otherwise; the ends of an interval get the decimals of their
mean. Bytes are powers of ten (1 MB = 1,000,000 bytes), as disks and downloads count. Nothing here
rounds what is stored: results.json keeps every digit. A number that was not measured is None (or
not a number at all) and is written as `MISSING`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, TypeGuard

MISSING = "–"


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float, which is not to be taken for granted in a file from
    elsewhere.
    """
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def decimals(value: float, digits: int = 3) -> int:
    """Decimals that show `digits` significant digits of `value`; 0 for zero."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def number(value: Any, digits: int = 3) -> str:
    """`value` with `digits` significant digits: 0.0991, 21.9, 16,384; an exact 0 is "0"; tiny ones
    as 1.2e-06.
    """
    if not is_number(value):
        return MISSING
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{decimals(value, digits)}f}"


def fixed(value: Any, places: int) -> str:
    """`value` with exactly `places` decimals."""
    return f"{value:,.{places}f}" if is_number(value) else MISSING


def count(value: Any) -> str:
    """A whole number with thousands marked."""
    return f"{value:,.0f}" if is_number(value) else MISSING


def percent(value: Any, places: int = 1) -> str:
    """A share of 1 as "86.1 %"."""
    return f"{100 * value:.{places}f}\u00a0%" if is_number(value) else MISSING


def part(value: Any) -> str:
    """A part of a whole as "41.4 %"; what is too small to show reads "< 0.1 %", never 0."""
    if is_number(value) and 0 < value < 0.0005:
        return "<\u00a00.1\u00a0%"
    return percent(value)


def size(num_bytes: Any) -> str:
    """Bytes as "412 bytes", "48.3 KB", "84.9 MB" or "14.5 GB"."""
    if not is_number(num_bytes):
        return MISSING
    if abs(num_bytes) < 1000:
        return f"{num_bytes:.0f}\u00a0bytes"
    for unit, scale in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if abs(num_bytes) < 999.95 * scale or unit == "GB":
            return f"{num_bytes / scale:,.1f}\u00a0{unit}"
    raise AssertionError("unreachable: the last unit takes everything")


def duration(seconds: Any) -> str:
    """Seconds as "0.41 s", "74.9 s", "12 min 5 s" or "3 h 20 min"."""
    if not is_number(seconds):
        return MISSING
    if seconds < 120:
        return f"{number(seconds, 2 if seconds < 1 else 3)}\u00a0s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}\u00a0min {rest}\u00a0s"
    return f"{minutes // 60}\u00a0h {minutes % 60}\u00a0min"


def span(interval: Any, digits: int = 3, share: bool = False) -> str:
    """The two ends of an interval, "0.0943 to 0.1049", with the decimals of its mean; MISSING when
    they are not known.

    `share` writes percent: "85.3 to 87.0 %".
    """
    if not isinstance(interval, Mapping) or not all(
        is_number(interval.get(key)) for key in ("mean", "low", "high")
    ):
        return MISSING
    low, mean, high = (float(interval[key]) for key in ("low", "mean", "high"))
    if share:
        return f"{100 * low:.1f} to {percent(high)}"
    places = decimals(mean, digits)
    return f"{low:,.{places}f} to {high:,.{places}f}"


def mean(interval: Any) -> float | None:
    """The mean of an interval from results.json, or None."""
    value: Any = interval.get("mean") if isinstance(interval, Mapping) else None
    return float(value) if is_number(value) else None
