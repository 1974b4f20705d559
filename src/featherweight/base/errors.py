"""The errors of this package, whose messages are written for users, with the exit codes of the
shell.

0 success · 2 usage or bad input · 3 refused by the preflight · 4 a bound of --fail-if missed
5 export comparison failed · 6 the weights are finished, their evaluation failed
130 interrupted, and the same command resumes
"""

from __future__ import annotations


class FeatherweightError(Exception):
    """Base class of errors that a user can act on; the message names the cause and what to try."""

    exit_code = 2


class UsageError(FeatherweightError, ValueError):
    """A setting that cannot work: wrong bits, an impossible group, a pattern that matches
    nothing.
    """


class BadInput(FeatherweightError, ValueError):
    """Data that cannot be used: missing or corrupt files, non-finite numbers, too little text."""


class Unsupported(UsageError):
    """A model that this engine or file format does not support, although another one does."""


class PreflightRefused(FeatherweightError):
    """A run that needs more memory or disk space than is available or allowed."""

    exit_code = 3


class BoundMissed(FeatherweightError):
    """A result that does not keep a bound that the user set."""

    exit_code = 4


class EvidenceFailed(FeatherweightError):
    """The weights are finished and can be used, but what they cost could not be measured."""

    exit_code = 6


class ExportFailed(FeatherweightError):
    """An export whose files, read again, differ from the model; they were deleted."""

    exit_code = 5
