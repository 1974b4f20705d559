"""Prompt lookup: propose the next tokens by copying what followed the same tokens earlier in the
text.

Answers repeat their prompt (names, code, quotations). So the tokens after the latest earlier
occurrence of the last three tokens (else of the last two) are a good draft. Checking several draft
tokens in one forward costs little more than one token, because the weights are read once (Saxena
2023, prompt lookup decoding; Yang et al. 2023, LLMA). The output does not change: a draft token is
accepted only where the sampler chooses the same token from the model's own logits.
"""

from __future__ import annotations

from collections.abc import Iterable

LENGTHS = (3, 2)  # how many last tokens must be the same; the longest match is tried first


class PromptLookup:
    """A text with an index of the latest position behind each run of two and of three tokens."""

    def __init__(self, ids: Iterable[int] = ()) -> None:
        self._ids: list[int] = []
        # For each length: a run of tokens -> the position of the token that followed it.
        self._next_positions: list[dict[tuple[int, ...], int]] = [{} for _ in LENGTHS]
        for id in ids:
            self.append(id)

    def append(self, token: int) -> None:
        """Add a token to the text."""
        # Only now is the run that ends before `token` entered: a run must not be found as its own
        # earlier occurrence.
        for length, next_positions in zip(LENGTHS, self._next_positions, strict=True):
            if len(self._ids) >= length:
                next_positions[tuple(self._ids[-length:])] = len(self._ids)
        self._ids.append(token)

    def draft(self, count: int) -> list[int]:
        """At most `count` tokens that may come next; none when the last tokens are a new run."""
        for length, next_positions in zip(LENGTHS, self._next_positions, strict=True):
            position = next_positions.get(tuple(self._ids[-length:]))
            if position is not None:
                return self._ids[position : position + count]
        return []
