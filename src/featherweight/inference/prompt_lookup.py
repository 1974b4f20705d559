"""Prompt lookup: guess the next tokens by copying what followed the same tokens before.

Answers repeat their prompt (names, code, quotations), so the tokens after the latest earlier
occurrence of the last three (else two) are a good guess, and checking several guesses in one
forward costs little more than one token, because the weights are read once (Saxena 2023, prompt
lookup decoding; Yang et al. 2023, LLMA). The output does not change: a guess counts only where the
sampler chooses the same token from the model's own logits.
"""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (3, 2)  # how many last tokens must be the same; the longest match is tried first


class Lookup:
    """The text so far with an index of where each run of two and three tokens was seen last."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        self._after: list[dict[tuple[int, ...], int]] = [{} for _ in LENGTHS]
        for id in ids:
            self.append(id)

    def append(self, token: int) -> None:
        """One more token of the text."""
        # The run that ends before `token` is entered now: a run must not be found as its own
        # occurrence.
        for length, after in zip(LENGTHS, self._after, strict=True):
            if len(self._ids) >= length:
                after[tuple(self._ids[-length:])] = len(self._ids)
        self._ids.append(token)

    def guess(self, count: int) -> list[int]:
        """At most `count` tokens that may come next; none when the last ones are new."""
        for length, after in zip(LENGTHS, self._after, strict=True):
            place = after.get(tuple(self._ids[-length:]))
            if place is not None:
                return self._ids[place : place + count]
        return []
