"""Documents of one source -> sequences of exactly one length; sources -> one interleaved list with
the mix's shares.

Plain text is joined and cut without regard to where documents begin, as evaluation windows are.
Dialogues start a sequence: a chat always begins with its template, and the first token of a
sequence draws most of the attention, so a sequence that starts in the middle of a turn measures
something that never happens. Everything is seeded, and the first n sequences do not depend on how
many follow.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

Ids = tuple[int, ...]


def generator(seed: int, name: str) -> random.Random:
    """A stream of its own for each source, so that one mix's sequences of a source are another
    mix's as well.
    """
    return random.Random(
        int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "big")
    )


def cut(documents: Sequence[Sequence[int]], length: int, first: Sequence[int] = ()) -> list[Ids]:
    """Join documents and cut every `length` tokens, `first` (a BOS) at the start of each; the tail
    is dropped.
    """
    body = length - len(first)
    joined = [token for document in documents for token in document]
    return [(*first, *joined[i : i + body]) for i in range(0, len(joined) - body + 1, body)]


def pack(dialogues: Sequence[Sequence[int]], length: int, first: Sequence[int] = ()) -> list[Ids]:
    """Whole dialogues from the start of each sequence until it is full; what does not fit is
    dropped.
    """
    body = length - len(first)
    found: list[Ids] = []
    waiting: list[int] = []
    for dialogue in dialogues:
        waiting += dialogue
        if len(waiting) >= body:
            found += cut([waiting], length, first)
            waiting = []
    return found


def unique(sequences: Sequence[Ids]) -> list[Ids]:
    """The same without repetitions, first ones kept."""
    return list(dict.fromkeys(sequences))


def schedule(shares: Mapping[str, float], count: int) -> list[str]:
    """Which source comes at each of `count` places: always the one that lags its share most (first
    named on a tie).

    After any number of places each source's count is within one of its share.
    """
    total = sum(shares.values())
    used = dict.fromkeys(shares, 0)
    order: list[str] = []
    for place in range(1, count + 1):
        lag = {name: share / total * place - used[name] for name, share in shares.items()}
        chosen = max(lag, key=lambda name: lag[name])
        used[chosen] += 1
        order.append(chosen)
    return order
