"""Bounds on the result, for scripts:

`--fail-if "kl>0.05"` ends with exit code 4 when the bound is missed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base.errors import GateFailed, UsageError
from ..base.spec import nearest

FIGURES: dict[str, tuple[str, ...]] = {
    "kl": ("quality", "kl", "mean"),
    "kl_high": ("quality", "kl", "high"),
    "perplexity": ("quality", "light", "perplexity", "mean"),
    "top1": ("quality", "top1", "mean"),
    "bpw_codes": ("size", "bpw_codes"),
    "bpw_layers": ("size", "bpw_layers"),
    "bpw_file": ("size", "bpw_file"),
    "file_bytes": ("size", "file_bytes"),
}
COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
BOUND = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*")


def parse(bounds: Iterable[str]) -> list[tuple[str, str, float]]:
    """(figure, comparison, number) of each bound; raises UsageError, so call it before the work
    starts.
    """
    parsed = []
    for bound in bounds:
        match = BOUND.fullmatch(bound)
        if match is None:
            raise UsageError(f"--fail-if {bound!r} should look like kl>0.05")
        name, sign, text = match.groups()
        if name not in FIGURES:
            raise UsageError(f"--fail-if: unknown figure {name!r}; {nearest(name, FIGURES)}")
        try:
            parsed.append((name, sign, float(text)))
        except ValueError:
            raise UsageError(f"--fail-if {bound!r}: {text!r} is not a number") from None
    return parsed


def check(bounds: Iterable[tuple[str, str, float]], results: Mapping[str, Any]) -> None:
    """Raise GateFailed naming every bound that `results` misses; a figure that was not measured
    misses it too.
    """
    missed = []
    for name, sign, limit in bounds:
        value: Any = results
        for key in FIGURES[name]:
            value = value.get(key) if isinstance(value, Mapping) else None
        # Written so that a figure that is not a number misses every bound.
        if value is None:
            missed.append(f"{name} was not measured")
        elif value != value or COMPARE[sign](value, limit):
            missed.append(f"{name} is {value:.6g}, and {name}{sign}{limit:g} was to fail")
    if missed:
        raise GateFailed("; ".join(missed))
