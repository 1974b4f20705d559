"""What goes wrong, in the user's words, with the exit code that the shell shows.

0 success · 2 usage or bad input · 3 refused by the preflight · 4 a bound of --fail-if missed
5 export comparison failed · 130 interrupted, and the same command resumes
"""

from __future__ import annotations


class FeatherweightError(Exception):
    """Anything that a user can act on; its message names the cause and what to try."""

    exit_code = 2


class UsageError(FeatherweightError, ValueError):
    """A value that cannot work: wrong bits, an impossible group, a pattern that matches nothing."""


class BadInput(FeatherweightError, ValueError):
    """Data that cannot be used: missing or corrupt files, non-finite numbers, too little text."""


class Unsupported(UsageError):
    """What an engine or a file format cannot take, although another engine or format can."""


class PreflightRefused(FeatherweightError):
    """The plan needs more memory, disk or time than there is."""

    exit_code = 3


class BoundMissed(FeatherweightError):
    """A result missed a bound the user asked for."""

    exit_code = 4


class ExportFailed(FeatherweightError):
    """An export, read again, is not what it should hold; it was deleted."""

    exit_code = 5
