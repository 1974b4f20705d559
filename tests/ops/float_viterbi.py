"""The textbook search: Viterbi in float32 over all states, with a true infinity. Tests compare its
error, not its bytes.
"""

from __future__ import annotations

import torch
from torch import Tensor


def encode_float(x: Tensor, values: Tensor, L: int, k: int) -> Tensor:
    """(tiles, T) -> the numbers (tiles, T) on the tail-biting path that two passes find nearest."""
    return torch.cat([_encode(part, values, L, k) for part in x.split(max(1, (1 << 14) >> L))])


def _encode(x: Tensor, values: Tensor, L: int, k: int) -> Tensor:
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
    """States (tiles, T) of the path with the least sum of squares; `start` and `end` are costs that
    are added to it.
    """
    groups = 1 << (L - k)
    cost = start + (samples[:, :1] - values).square()
    predecessors = []
    for t in range(1, samples.shape[1]):
        best = cost.view(-1, 1 << k, groups).min(
            1
        )  # over the states that lead to the same 2^k successors
        predecessors.append(best.indices)
        error = (samples[:, t : t + 1] - values).square().view(-1, groups, 1 << k)
        cost = (best.values[:, :, None] + error).flatten(1)
    path = [(cost + end).argmin(1)]
    for back in reversed(predecessors):
        group = path[-1] >> k
        path.append(group + groups * back.gather(1, group[:, None])[:, 0])
    return torch.stack(path[::-1], 1)
