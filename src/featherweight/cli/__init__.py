"""The only room that reads the command line and prints.

The commands `featherweight` and `fw` start at `main`.
"""

from .app import main

__all__ = ["main"]
