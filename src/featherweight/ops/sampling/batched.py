"""Sampling of many texts at once in torch, on the device of the logits: the same steps as
`reference.py`, which is the definition.

`truncate` gives the scores that temperature, top-k, top-p and min-p leave, `draw` chooses a token
for each row from one uniform number. For equal logits and an equal uniform number the token is that
of the reference, except where the number lies within rounding of the border between two tokens.
With top-k, tokens that tie with the k-th are decided by the lower id here and are undefined there.

For policy gradients each token has two log-probabilities, both in float32 and in nats: that of the
full softmax at the sampling temperature, which a training step can compute again from logits alone,
and that of the distribution from which the token was drawn, which differs by the mass that
truncation removed. Both are after the repetition penalty. Greedy sampling draws from nothing: its
full log-probability is that at temperature 1, the other is 0.

Cost: one exp of rows x vocabulary and its sums over blocks in float64, of which only one a row is
searched. Top-k and top-p sort only the most likely tokens of a row.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from ...base.errors import BadInput
from ...base.sampling import Sampling
from .reference import BLOCK, FIRST_PARTITION


class Draw(NamedTuple):
    """The chosen tokens with their log-probabilities in nats, of the full softmax at the sampling
    temperature and of the truncated distribution.
    """

    tokens: Int64[Tensor, " rows"]
    logprobs: Float[Tensor, " rows"]
    truncated_logprobs: Float[Tensor, " rows"]


def draw(
    logits: Float[Tensor, "rows vocab"],
    sampling: Sampling,
    uniforms: Float[Tensor, " rows"],
    occurrences: Bool[Tensor, "rows vocab"] | None = None,
) -> Draw:
    """A token for each row.

    Args: logits, not changed; uniforms, one number from 0 to 1 a row, unused by greedy sampling;
    occurrences, True for the tokens of the text so far, needed only with a repetition penalty.
    Raises BadInput for logits whose largest is not finite.
    """
    scores = penalise(logits.float(), sampling.repetition_penalty, occurrences)
    best_scores, best = scores.max(-1)
    if not bool(best_scores.isfinite().all()):
        raise BadInput(
            "the model gives logits that are not finite; its weights are damaged, or training "
            "diverged"
        )
    if sampling.is_greedy:
        logprobs = best_scores - scores.logsumexp(-1)
        return Draw(best, logprobs, torch.zeros_like(logprobs))
    scaled = torch.sub(scores, best_scores[:, None]).div_(sampling.temperature)
    weights = scaled.exp()
    sums = _block_sums(weights)
    logs = sums.sum(-1).log()
    mask = _kept_tokens(weights, sums.sum(-1), sampling)
    if mask is not None:
        weights.masked_fill_(~mask, 0)
        sums = _block_sums(weights)
    tokens = _search(weights, sums, uniforms)
    chosen = scaled.gather(1, tokens[:, None])[:, 0]
    return Draw(tokens, chosen - logs.float(), chosen - sums.sum(-1).log().float())


def penalise(
    logits: Float[Tensor, "rows vocab"],
    penalty: float,
    occurrences: Bool[Tensor, "rows vocab"] | None,
) -> Float[Tensor, "rows vocab"]:
    """The logits after the repetition penalty."""
    if penalty == 1 or occurrences is None:
        return logits
    lower = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(occurrences, lower, logits)


def truncate(
    scores: Float[Tensor, "rows vocab"], sampling: Sampling
) -> Float[Tensor, "rows vocab"]:
    """`scores`, which are logits divided by the temperature, with minus infinity at the tokens that
    top-k, top-p and min-p remove; the same tensor when they remove none.
    """
    weights = (scores - scores.amax(-1, keepdim=True)).exp()
    mask = _kept_tokens(weights, weights.sum(-1, dtype=torch.float64), sampling)
    return scores if mask is None else scores.masked_fill(~mask, -torch.inf)


def _kept_tokens(
    weights: Float[Tensor, "rows vocab"], total: Float[Tensor, " rows"], sampling: Sampling
) -> Bool[Tensor, "rows vocab"] | None:
    """True at the tokens that truncation leaves; None when it removes none.

    weights: probabilities, of which the largest of a row is 1, and their sums.
    """
    vocab, mask = weights.shape[-1], None
    top_k = min(sampling.top_k or vocab, vocab)
    if top_k < vocab or sampling.top_p < 1:
        smallest, counts = _border(weights, total, top_k, sampling.top_p)
        mask = weights >= smallest
        if bool((mask.sum(-1, keepdim=True) > counts).any()):
            # Of equal weights those with the lowest ids stay.
            larger = weights > smallest
            places = (mask & ~larger).cumsum(-1)
            mask = larger | (mask & (places <= counts - larger.sum(-1, keepdim=True)))
    if sampling.min_p > 0:
        is_probable = weights >= sampling.min_p
        mask = is_probable if mask is None else mask & is_probable
    return mask


def _border(
    weights: Float[Tensor, "rows vocab"], total: Float[Tensor, " rows"], top_k: int, top_p: float
) -> tuple[Float[Tensor, "rows 1"], Int64[Tensor, "rows 1"]]:
    """The smallest weight of each row that top-k and top-p keep, and the number of those they keep.

    Usually the probability of the few largest is enough, so no row is sorted.
    """
    vocab = weights.shape[-1]
    size = top_k if top_k < vocab else min(FIRST_PARTITION, vocab)
    while True:
        ordered = weights.topk(size, dim=-1).values
        mass = ordered.double().cumsum(-1)
        targets = top_p * (mass[:, -1:] if top_k < vocab else total[:, None])
        if size == vocab or top_k < vocab or bool((mass[:, -1:] >= targets).all()):
            break
        size = min(16 * size, vocab)
    # A token stays when the larger ones together have less than p of the probability.
    counts = torch.searchsorted(mass, targets) + 1 if top_p < 1 else torch.full_like(targets, size)
    counts = counts.clamp(max=size).long()
    return ordered.gather(1, counts - 1), counts


def _block_sums(weights: Float[Tensor, "rows vocab"]) -> Float[Tensor, "rows blocks"]:
    """The sums of `weights` over blocks of tokens, in float64; the last block may be shorter."""
    vocab = weights.shape[1]
    end = vocab - vocab % BLOCK
    sums = weights[:, :end].unflatten(1, (end // BLOCK, BLOCK)).sum(-1, dtype=torch.float64)
    if end == vocab:
        return sums
    return torch.cat([sums, weights[:, end:].sum(-1, keepdim=True, dtype=torch.float64)], 1)


def _search(
    weights: Float[Tensor, "rows vocab"],
    sums: Float[Tensor, "rows blocks"],
    uniforms: Float[Tensor, " rows"],
) -> Int64[Tensor, " rows"]:
    """The index at which the cumulated weights exceed `uniforms` times their sum: first its block,
    then the index in the block.
    """
    mass = sums.cumsum(-1)
    targets = uniforms.to(mass)[:, None] * mass[:, -1:]
    blocks = _first_above(mass, targets)
    before = (mass - sums).gather(1, blocks)
    ids = blocks * BLOCK + torch.arange(BLOCK, device=weights.device)
    block_weights = weights.gather(1, ids.clamp(max=weights.shape[1] - 1)).double()
    block_mass = block_weights.masked_fill_(ids >= weights.shape[1], 0).cumsum(-1)
    return (blocks * BLOCK + _first_above(block_mass, targets - before))[:, 0]


def _first_above(
    mass: Float[Tensor, "rows count"], targets: Float[Tensor, "rows 1"]
) -> Int64[Tensor, "rows 1"]:
    """The first index at which `mass`, which grows, exceeds the target."""
    indices = torch.searchsorted(mass, targets, right=True)
    # By rounding, the target may equal the total. Then the last index with any weight is used.
    return torch.minimum(indices, torch.searchsorted(mass, mass[:, -1:].contiguous()))
