"""Tokens drawn from the rows of a distribution, and how often each was drawn."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


def draw_evenly(
    weights: Float[Tensor, "rows vocabulary"], draws: int, generator: torch.Generator
) -> Int[Tensor, "rows draws"]:
    """`draws` ids of each row, sorted.

    Systematic sampling (Madow 1949): points at distance 1/draws on the cumulative weights, the
    first of them uniform below 1/draws. A token is expected draws x its share of the weights times,
    as with independent draws, but its count differs from that by less than 1, so frequencies vary
    less. weights: not negative, they need not add up to 1; a row of zeros gives ids without
    meaning.
    """
    sums = weights.double().cumsum(-1)
    device = generator.device
    first = torch.rand(len(weights), 1, generator=generator, dtype=torch.float64, device=device)
    points = (first.to(weights.device) + torch.arange(draws, device=weights.device)) / draws
    ids = torch.searchsorted(sums, points * sums[:, -1:], right=True)
    return ids.clamp_(max=weights.shape[-1] - 1)


def log_frequencies(ids: Int[Tensor, "rows draws"]) -> Float[Tensor, "rows draws"]:
    """For sorted `ids`, log(count / draws) where an id appears for the first time in its row, and
    -inf where it is repeated.
    """
    draws = ids.shape[-1]
    # A run of equal ids begins where an id differs from the one before, and ends where the next
    # run begins.
    is_first = torch.ones_like(ids, dtype=torch.bool)
    is_first[:, 1:] = ids[:, 1:] != ids[:, :-1]
    places = torch.arange(draws, device=ids.device).expand_as(ids)
    starts = torch.where(is_first, places, draws)
    next_starts = starts.flip(-1).cummin(-1).values.flip(-1)
    ends = torch.full_like(starts, draws)
    ends[:, :-1] = next_starts[:, 1:]
    log_counts = torch.log((ends - starts).float() / draws)
    return torch.where(is_first, log_counts, -math.inf)
