"""The program: runs a command, and turns an error into one line and an exit code.

0 done · 1 an error of ours · 2 usage or bad input · 3 the preflight refused · 4 a bound was missed
· 130 interrupted. A traceback is shown only with FEATHERWEIGHT_TRACEBACK=1. Starting up imports
typer and nothing heavy, so that `fw --help` answers at once; each command imports what it needs
when it runs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from ..base.errors import FeatherweightError
from .commands import app

TRACEBACK = "FEATHERWEIGHT_TRACEBACK"


def run(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (None: sys.argv) and exit with its code."""
    try:
        app(args=argv)
    except SystemExit as stop:
        if stop.code == 130:
            _say("interrupted; the same command resumes")
        raise
    except KeyboardInterrupt:
        _say("interrupted; the same command resumes")
        sys.exit(130)
    except Exception as error:
        if os.environ.get(TRACEBACK, "") not in ("", "0"):
            raise
        message, code = explain(error)
        _say(f"error: {message}", red=True)
        sys.exit(code)


def explain(error: Exception) -> tuple[str, int]:
    """(what to tell the user about `error`, in one line; the exit code)."""
    from ..base.files import is_disk_full

    if isinstance(error, FeatherweightError):
        return " ".join(str(error).split()), error.exit_code
    if is_disk_full(error):
        return "no space left on the disk; free some space, the same command resumes", 2
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}", 2
    if isinstance(error, MemoryError):
        return "not enough memory; `fw plan` says how much a recipe needs", 3
    first_line = str(error).strip().splitlines()[:1]
    summary = ": ".join([type(error).__name__, *first_line])
    return f"{summary} (unexpected; {TRACEBACK}=1 shows where, please report it)", 1


def _say(text: str, red: bool = False) -> None:
    with_colour = red and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    print(f"\033[31m{text}\033[0m" if with_colour else text, file=sys.stderr, flush=True)
