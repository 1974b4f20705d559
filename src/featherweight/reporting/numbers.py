"""How numbers are written: as many digits as they carry, one unit each, and a dash where there is
no number.

Three significant digits unless said otherwise; the ends of an interval get the decimals of their
mean. Bytes are powers of ten (1 MB = 1,000,000 bytes), as disks and downloads count. Nothing here
changes what is stored: the file behind a report keeps every digit. A number that was not measured
is None (or not a number at all) and is written as `DASH`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard

DASH = "–"
SPACE = "\u00a0"  # between a number and its unit no line may break


def is_number(value: Any) -> TypeGuard[float]:
    """Whether `value` is a finite int or float; a file from elsewhere may hold anything."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def num_decimals(value: float, digits: int = 3) -> int:
    """Decimals that show `digits` significant digits of `value`; 0 for zero."""
    return max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0


def number(value: Any, digits: int = 3) -> str:
    """`value` with `digits` significant digits: 0.0991, 21.9, 16,384; an exact 0 is "0"; numbers
    below 0.0001 as 1.2e-06.
    """
    if not is_number(value):
        return DASH
    if value and abs(value) < 1e-4:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{num_decimals(value, digits)}f}"


def decimal(value: Any, decimals: int) -> str:
    """`value` with exactly that many decimals."""
    return f"{value:,.{decimals}f}" if is_number(value) else DASH


def count(value: Any) -> str:
    """An integer with its thousands separated."""
    return f"{value:,.0f}" if is_number(value) else DASH


def percent(value: Any, decimals: int = 1) -> str:
    """A fraction of 1 as "86.1 %"."""
    return f"{100 * value:.{decimals}f}{SPACE}%" if is_number(value) else DASH


def share(value: Any) -> str:
    """A share of a total as "41.4 %"; a share too small to show reads "< 0.1 %", never 0."""
    if is_number(value) and 0 < value < 0.0005:
        return f"<{SPACE}0.1{SPACE}%"
    return percent(value)


def size(num_bytes: Any) -> str:
    """Bytes as "412 bytes", "48.3 KB", "84.9 MB" or "14.5 GB"."""
    if not is_number(num_bytes):
        return DASH
    if abs(num_bytes) < 1000:
        return f"{num_bytes:.0f}{SPACE}bytes"
    for unit, scale in (("KB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if abs(num_bytes) < 999.95 * scale or unit == "GB":
            return f"{num_bytes / scale:,.1f}{SPACE}{unit}"
    raise AssertionError("unreachable: the last unit takes everything")


def duration(seconds: Any) -> str:
    """Seconds as "0.41 s", "74.9 s", "12 min 5 s" or "3 h 20 min"."""
    if not is_number(seconds):
        return DASH
    if seconds < 120:
        return f"{number(seconds, 2 if seconds < 1 else 3)}{SPACE}s"
    minutes, remainder = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes}{SPACE}min {remainder}{SPACE}s"
    return f"{minutes // 60}{SPACE}h {minutes % 60}{SPACE}min"


def interval_ends(interval: Any, digits: int = 3, as_percent: bool = False) -> str:
    """The two ends of {"mean", "low", "high"}, "0.0943 to 0.1049", with the decimals of the mean;
    `DASH` unless all three are numbers.

    `as_percent` writes fractions of 1 as "85.3 to 87.0 %".
    """
    if not isinstance(interval, Mapping) or not all(
        is_number(interval.get(key)) for key in ("mean", "low", "high")
    ):
        return DASH
    low, mean, high = (float(interval[key]) for key in ("low", "mean", "high"))
    if as_percent:
        return f"{100 * low:.1f} to {percent(high)}"
    decimals = num_decimals(mean, digits)
    return f"{low:,.{decimals}f} to {high:,.{decimals}f}"


def interval_mean(interval: Any) -> float | None:
    """The mean of {"mean", "low", "high"}, or None."""
    value: Any = interval.get("mean") if isinstance(interval, Mapping) else None
    return float(value) if is_number(value) else None


@dataclass(frozen=True)
class Unit:
    """How the numbers of a column or an axis are written.

    kind: "number" (significant digits), "count" (an integer), "share" (a fraction of 1, shown as
        percent), "bytes" or "seconds".
    name: what a plain number counts, like "nats"; axes show it behind their label.
    digits: significant digits of a plain number.
    decimals: a fixed number of decimals for a plain number or a share, instead of `digits`.
    """

    kind: Literal["number", "count", "share", "bytes", "seconds"] = "number"
    name: str = ""
    digits: int = 3
    decimals: int | None = None

    def text(self, value: Any) -> str:
        """`value` as it stands in a table or beside a mark."""
        if self.kind == "number" and self.decimals is not None:
            return decimal(value, self.decimals)
        if self.kind == "share" and self.decimals is not None:
            return percent(value, self.decimals)
        if self.kind == "number":
            return number(value, self.digits)
        return {"count": count, "share": share, "bytes": size, "seconds": duration}[self.kind](
            value
        )

    def tick(self, value: float) -> str:
        """A round `value` as it stands at an axis, without zeros that say nothing."""
        if self.kind == "share":
            return f"{100 * value:.6g}{SPACE}%"
        if self.kind == "bytes":
            return size(value).replace(".0", "")
        if self.kind == "seconds":
            return f"{value:.6g}{SPACE}s" if value < 120 else duration(value)
        return f"{value:,.6g}" if value == 0 or abs(value) >= 1e-4 else f"{value:.0e}"

    def interval(self, low: Any, high: Any) -> str:
        """Two ends as "0.094 to 0.105", or `DASH`."""
        if not (is_number(low) and is_number(high)):
            return DASH
        return f"{self.text(low)} to {self.text(high)}"


NUMBER, COUNT, SHARE = Unit(), Unit("count"), Unit("share")
BYTES, SECONDS = Unit("bytes"), Unit("seconds")
