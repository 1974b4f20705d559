"""Streamed text: each token adds the characters that are certain, and no character is taken back.

Two things are withheld. A token may hold part of a character: its text ends in U+FFFD until the
other parts come. And text that may be the beginning of a stop string waits until it is one or is
not. All characters together are the text of all tokens up to the first stop string.

Each call decodes the last few tokens only: those whose text is not released yet, behind those of
the latest released text. Decoders treat the beginning of a text in their own way (sentencepiece
drops its space), so a few tokens of context must come first.
"""

from __future__ import annotations

from .tokenizer import ChatTokenizer

REPLACEMENT = "\ufffd"  # what decoders write for bytes that are no complete character
# Three would be enough for bytes that are decoded one by one. But sentencepiece decodes a whole run
# of byte tokens as U+FFFD, complete characters included, until its last character is complete.
MAX_REPLACEMENT_RUN = 32
# Tokens to wait for when the decoder changes text that was released already.
MAX_WAIT_TOKENS = 8


class TextStream:
    """Turns token ids into text, one after the other.

    stop: strings that end the text; the first of them and all text behind it are not returned.
    """

    is_stopped: bool  # whether a stop string was found; no text is returned after it

    def __init__(self, tokenizer: ChatTokenizer, stop: tuple[str, ...] = ()) -> None:
        self.is_stopped = False
        self._tokenizer, self._stop = tokenizer, stop
        # The tokens that are decoded in each call: those of the latest released text, then those
        # without released text.
        self._ids: list[int] = []
        self._num_context = 0  # how many of them belong to released text
        self._released_text = ""  # the beginning of their text that was released
        self._withheld_text = ""  # released, but perhaps the beginning of a stop string

    def push(self, token_id: int) -> str:
        """The text that is certain with this token: often "", and sometimes several words."""
        if self.is_stopped:
            return ""
        self._ids.append(token_id)
        return self._search_stop(self._release(is_final=False), is_final=False)

    def finish(self) -> str:
        """The text that was withheld, when no token follows."""
        if self.is_stopped:
            return ""
        return self._search_stop(self._release(is_final=True), is_final=True)

    def _release(self, is_final: bool) -> str:
        """New characters that no later token can change."""
        if len(self._ids) == self._num_context:
            return ""
        text = self._tokenizer.decode(self._ids)
        if not text.startswith(self._released_text):
            if not is_final and len(self._ids) - self._num_context <= MAX_WAIT_TOKENS:
                return ""
            # What was released stays as it is; the new tokens are decoded without the old ones.
            self._ids, self._num_context = self._ids[self._num_context :], 0
            self._released_text = ""
            text = self._tokenizer.decode(self._ids)
        stable = text if is_final else _without_partial_character(text)
        new = stable[len(self._released_text) :]
        if len(stable) < len(text) or not new:
            if len(stable) > len(self._released_text):
                self._released_text = stable
            return new
        # All of the text is released: its new tokens become the context of the next ones.
        self._ids = self._ids[self._num_context :]
        self._num_context = len(self._ids)
        self._released_text = self._tokenizer.decode(self._ids)
        return new

    def _search_stop(self, new: str, is_final: bool) -> str:
        """The withheld text and `new`, up to a stop string; a possible beginning of one is
        withheld.
        """
        if not self._stop:
            return new
        text = self._withheld_text + new
        positions = [position for position in map(text.find, self._stop) if position >= 0]
        if positions:
            self.is_stopped, self._withheld_text = True, ""
            return text[: min(positions)]
        end = len(text) if is_final else min(_find_beginning(text, stop) for stop in self._stop)
        self._withheld_text = text[end:]
        return text[:end]


def _without_partial_character(text: str) -> str:
    end = len(text)
    while end and text[end - 1] == REPLACEMENT and len(text) - end < MAX_REPLACEMENT_RUN:
        end -= 1
    return text[:end]


def _find_beginning(text: str, stop: str) -> int:
    """The first position from which the end of `text` is the beginning of `stop`; the length of
    `text` when there is none.
    """
    position = max(0, len(text) - len(stop) + 1)
    while (position := text.find(stop[0], position)) >= 0:
        if stop.startswith(text[position:]):
            return position
        position += 1
    return len(text)
