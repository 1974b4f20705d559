"""Bounds on the result, for scripts: `--fail-if "kl>0.05"` ends with exit code 4 when the result
misses the bound.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..base.errors import BoundMissed, UsageError
from ..base.spec import nearest

# The name of a figure in a bound -> its keys in results.json.
FIGURES: dict[str, tuple[str, ...]] = {
    "kl": ("quality", "kl", "mean"),
    "kl_high": ("quality", "kl", "high"),
    "perplexity": ("quality", "light", "perplexity", "mean"),
    "top1": ("quality", "top1", "mean"),
    "loops": ("free_running", "rates", "loops", "light"),
    "endless": ("free_running", "rates", "endless", "light"),
    "empty": ("free_running", "rates", "empty", "light"),
    "form_breaks": ("free_running", "rates", "form_breaks", "light"),
    "flags": ("free_running", "num_flags"),
    "bpw_codes": ("size", "bpw_codes"),
    "bpw_layers": ("size", "bpw_layers"),
    "bpw_file": ("size", "bpw_file"),
    "file_bytes": ("size", "file_bytes"),
}
COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    "<": operator.lt,
    ">=": operator.ge,
    "<=": operator.le,
}
BOUND_PATTERN = re.compile(r"\s*(\w+)\s*(>=|<=|>|<)\s*([-+.\deE]+)\s*")

ResultBound = tuple[str, str, float]  # (figure, comparison, limit)


def parse(texts: Iterable[str]) -> list[ResultBound]:
    """The bound of each text.

    Raises UsageError for a text that is no bound, so it should be called before the work starts.
    """
    bounds = []
    for text in texts:
        match = BOUND_PATTERN.fullmatch(text)
        if match is None:
            raise UsageError(f"--fail-if {text!r} should look like kl>0.05")
        figure, comparison, number = match.groups()
        if figure not in FIGURES:
            raise UsageError(f"--fail-if: unknown figure {figure!r}; {nearest(figure, FIGURES)}")
        try:
            bounds.append((figure, comparison, float(number)))
        except ValueError:
            raise UsageError(f"--fail-if {text!r}: {number!r} is not a number") from None
    return bounds


def check(bounds: Iterable[ResultBound], results: Mapping[str, Any]) -> None:
    """Raise BoundMissed, naming every bound that `results` misses; a figure that was not measured
    misses its bound too.
    """
    failures = []
    for figure, comparison, limit in bounds:
        value: Any = results
        for key in FIGURES[figure]:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is None:
            failures.append(f"{figure} was not measured")
        # NaN, which differs from itself, misses every bound.
        elif value != value or COMPARISONS[comparison](value, limit):
            failures.append(
                f"{figure} is {value:.6g}, and {figure}{comparison}{limit:g} was to fail"
            )
    if failures:
        raise BoundMissed("; ".join(failures))
