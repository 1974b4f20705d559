"""Text as it comes: each token adds what is certain, and nothing that is shown is taken back.

Two things are held back. A token may hold part of a character (its text ends in U+FFFD until the
rest comes), and text that may be the beginning of a stop string waits until it is one or is not.
What is shown, put together, is the text of all ids up to the first stop string.

Only the last few tokens are decoded again at each push: those that are not shown yet, after those
of the last piece that was, because decoders treat the beginning of a text in their own way
(sentencepiece drops its space).
"""

from __future__ import annotations

from .tokenizer import ChatTokenizer

UNFINISHED = "\ufffd"
# Three would do for bytes that are decoded one by one; sentencepiece reads a whole run of byte
# tokens as U+FFFD, of good characters too, until its last character is complete.
UNFINISHED_RUN = 32
PATIENCE = 8  # tokens to wait for, when a decoder changes its mind about what was shown


class TextStream:
    """Turns one token after the other into text; see the top of this file."""

    stopped: bool  # whether a stop string was found; nothing is shown after it

    def __init__(self, text: ChatTokenizer, stop: tuple[str, ...] = ()) -> None:
        self.stopped = False
        self._text, self._stop = text, stop
        self._ids: list[
            int
        ] = []  # what is decoded again: the last shown piece's, then those of no shown piece yet
        self._context = 0  # how many of them belong to shown pieces
        self._known = ""  # the beginning of their text that was released already
        self._held = ""  # released, but perhaps the beginning of a stop string

    def push(self, token_id: int) -> str:
        """What is certain with this token; often "" and sometimes several words."""
        if self.stopped:
            return ""
        self._ids.append(token_id)
        return self._search(self._release(final=False), final=False)

    def finish(self) -> str:
        """What was held back, when no token follows."""
        if self.stopped:
            return ""
        return self._search(self._release(final=True), final=True)

    def _release(self, final: bool) -> str:
        """Characters that no later token can change."""
        if len(self._ids) == self._context:
            return ""
        text = self._text.decode(self._ids)
        if not text.startswith(self._known):
            if not final and len(self._ids) - self._context <= PATIENCE:
                return ""
            self._ids, self._context, self._known = self._ids[self._context :], 0, ""
            text = self._text.decode(self._ids)
        certain = text if final else _without_unfinished(text)
        new = certain[len(self._known) :]
        if len(certain) < len(text) or not new:
            self._known = certain if len(certain) > len(self._known) else self._known
            return new
        self._ids = self._ids[self._context :]
        self._context, self._known = len(self._ids), self._text.decode(self._ids)
        return new

    def _search(self, new: str, final: bool) -> str:
        """`new` after what was held, up to a stop string; a possible beginning of one is held."""
        if not self._stop:
            return new
        text = self._held + new
        found = [place for place in map(text.find, self._stop) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        safe = len(text) if final else min(_beginning(text, stop) for stop in self._stop)
        self._held = text[safe:]
        return text[:safe]


def _without_unfinished(text: str) -> str:
    end = len(text)
    while end and text[end - 1] == UNFINISHED and len(text) - end < UNFINISHED_RUN:
        end -= 1
    return text[:end]


def _beginning(text: str, stop: str) -> int:
    """Where a beginning of `stop` starts that reaches the end of `text`; its length when there is
    none.
    """
    place = max(0, len(text) - len(stop) + 1)
    while (place := text.find(stop[0], place)) >= 0:
        if stop.startswith(text[place:]):
            return place
        place += 1
    return len(text)
