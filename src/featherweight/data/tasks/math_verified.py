"""Answers judged by the package math-verify, which understands LaTeX: sets, intervals, roots.

Its comparison is not symmetric, so the gold answer comes first. Its own time limits use a signal
that works in the main thread only; they are off, for `Grader` has a process and a limit of its own.
"""

from __future__ import annotations

from ...base.errors import UsageError
from .stated_numbers import final_part


def check_math_verify() -> None:
    """Raises UsageError when the package cannot be imported."""
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise UsageError(
            f"rule='math_verify' needs the package math-verify ({error}): "
            "pip install featherweight[math-verify]"
        ) from error


def math_verify_grade(gold: str, answer: str) -> float | None:
    """1 when `answer` equals `gold`, else 0; None when `gold` cannot be read. Forms that
    `stated_numbers` refuses are wrong.
    """
    from math_verify import parse, verify

    gold_forms = parse(gold, parsing_timeout=None)
    if not gold_forms:
        return None
    text = final_part(answer)
    if text is None:
        return 0.0
    return float(verify(gold_forms, parse(text, parsing_timeout=None), timeout_seconds=None))
