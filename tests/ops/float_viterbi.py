"""The textbook: Viterbi in float32 over all states, with an infinity that is one; compared on error, not on bytes."""

from __future__ import annotations

import torch
from torch import Tensor


def encode_float(x: Tensor, values: Tensor, L: int, k: int) -> Tensor:
    """(tiles, T) -> the numbers (tiles, T) on the path that two passes find nearest, tail-biting."""
    samples = x.clamp(-4, 4).flip(1)
    half = x.shape[1] // 2
    free = torch.zeros(len(x), 1 << L)
    overlap = viterbi(samples.roll(half, 1), values, L, k, free, free)[:, half] >> k
    state = torch.arange(1 << L)
    inf = torch.tensor(torch.inf)
    start = torch.where(state >> k == overlap[:, None], 0.0, inf)
    end = torch.where(state & ((1 << (L - k)) - 1) == overlap[:, None], 0.0, inf)
    return values[viterbi(samples, values, L, k, start, end)].flip(1)


def viterbi(samples: Tensor, values: Tensor, L: int, k: int, start: Tensor, end: Tensor) -> Tensor:
    """States (tiles, T) of the path with the least sum of squares, `start` and `end` added to it."""
    state = torch.arange(1 << L)
    predecessors = (state[:, None] >> k) + (torch.arange(1 << k) << (L - k))
    cost = start + (samples[:, :1] - values).square()
    chosen = []
    for t in range(1, samples.shape[1]):
        best = cost[:, predecessors].min(-1)
        chosen.append(predecessors[state, best.indices])
        cost = best.values + (samples[:, t : t + 1] - values).square()
    path = [(cost + end).argmin(1)]
    for back in reversed(chosen):
        path.append(back.gather(1, path[-1][:, None])[:, 0])
    return torch.stack(path[::-1], 1)
