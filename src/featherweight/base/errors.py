"""What goes wrong, in the user's words, with the exit code the shell shows.

0 done · 2 usage or bad input · 3 preflight refused · 4 quality gate failed · 5 export comparison failed ·
130 interrupted, and the same command resumes.
"""

from __future__ import annotations


class FeatherweightError(Exception):
    """Anything a user can act on; the message names the thing (layer, file, flag) and what to try."""

    exit_code = 2


class UsageError(FeatherweightError, ValueError):
    """A value that cannot work: wrong bits, an impossible group, a pattern that matches nothing."""


class BadInput(FeatherweightError, ValueError):
    """Data that cannot be used: missing or corrupt files, non-finite numbers, too little text."""


class Unsupported(UsageError):
    """A model, or a machine, that an engine or a file format cannot take although another one can."""


class PreflightRefused(FeatherweightError):
    """The plan needs more memory, disk or time than there is."""

    exit_code = 3


class GateFailed(FeatherweightError):
    """A result missed a bound the user asked for."""

    exit_code = 4


class ExportFailed(FeatherweightError):
    """An export, read again, is not what it should hold; it was deleted."""

    exit_code = 5
