"""Chat in the terminal: a line in, an answer out as it is made; lines from a pipe are questions
too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

Conversation = Callable[[str], Iterator[str]]


def converse(conversation: Conversation, once: str | None) -> None:
    """Answer `once`, or every line typed until Ctrl-D or /quit."""
    if once is not None:
        _answer(conversation, once)
        return
    while True:
        question = _read()
        if question is None or question == "/quit":
            return
        if question:
            try:
                _answer(conversation, question)
            except KeyboardInterrupt:
                # Ctrl-C stops an answer, as people expect; at the prompt it ends the program.
                print()


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _answer(conversation: Conversation, question: str) -> None:
    for piece in conversation(question):
        print(piece, end="", flush=True)
    print(flush=True)
