"""Is an answer caught in a loop? A function of its tokens alone.

An answer loops when one of these holds:

- It ends in one n-gram of at most 64 tokens that is repeated at least three times and fills at
  least its last 32 tokens. So a word must come 32 times, a sentence of 15 tokens three times.
- Fewer than a quarter of the 4-grams of its last 128 tokens are distinct. This finds loops that
  the end of the answer has cut or varied a little; the same n-gram over and over gives n / 125.

Counting and lists are no loops. They share words from line to line, but each line has something of
its own: `1, 2, 3, ...` has two distinct 4-grams in five when every digit is a token, and more
otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_PERIOD, MIN_REPEATS, MIN_REPEATED_TOKENS = 64, 3, 32
GRAM, RECENT_TOKENS, MIN_DISTINCT_SHARE = 4, 128, 0.25


def is_loop(tokens: Sequence[int]) -> bool:
    """Whether the answer `tokens`, without its end token, is caught in a loop."""
    return has_repeated_end(tokens) or has_few_grams(tokens)


def has_repeated_end(tokens: Sequence[int]) -> bool:
    """Whether the answer ends in an n-gram that is repeated often enough."""
    for period in range(1, MAX_PERIOD + 1):
        span = max(MIN_REPEATS * period, MIN_REPEATED_TOKENS)
        if len(tokens) < span:
            return False
        end = tokens[len(tokens) - span :]
        if all(a == b for a, b in zip(end, end[period:], strict=False)):
            return True
    return False


def has_few_grams(tokens: Sequence[int]) -> bool:
    """Whether few n-grams of the last tokens are distinct; False for a shorter answer."""
    if len(tokens) < RECENT_TOKENS:
        return False
    recent = list(tokens[-RECENT_TOKENS:])
    num_grams = RECENT_TOKENS - GRAM + 1
    grams = {tuple(recent[start : start + GRAM]) for start in range(num_grams)}
    return len(grams) < MIN_DISTINCT_SHARE * num_grams
