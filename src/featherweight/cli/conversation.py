"""Chat in the terminal: each line is a question, and its answer is printed while it is generated;
lines from a pipe are questions too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

Conversation = Callable[[str], Iterator[str]]


def converse(conversation: Conversation, question: str | None) -> None:
    """Answer `question`, or (None) every line of stdin until its end or /quit."""
    if question is not None:
        _answer(conversation, question)
        return
    while True:
        question = _read_question()
        if question is None or question == "/quit":
            return
        if question:
            try:
                _answer(conversation, question)
            except KeyboardInterrupt:
                # Ctrl-C ends an answer, as people expect; at the prompt it ends the program.
                print()


def _read_question() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None


def _answer(conversation: Conversation, question: str) -> None:
    for text in conversation(question):
        print(text, end="", flush=True)
    print(flush=True)
