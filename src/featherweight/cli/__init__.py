"""Floor 11: the only room that knows argv and prints.

The commands `featherweight` and `fw` start at `main`.
"""

from .app import main

__all__ = ["main"]
