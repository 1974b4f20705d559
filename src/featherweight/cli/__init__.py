"""The only room that reads the command line and prints.

The commands `featherweight` and `fw` start at `main`.
"""

from __future__ import annotations

import gc
from collections.abc import Sequence

# Imports make many objects that stay. Looking for garbage after 50,000 new objects, instead of a
# few hundred, makes the start of a command shorter by a tenth.
GARBAGE_THRESHOLD = 50_000


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line `argv` (None: sys.argv) and exit with its code."""
    gc.set_threshold(GARBAGE_THRESHOLD)
    from .app import run

    run(argv)


__all__ = ["main"]
