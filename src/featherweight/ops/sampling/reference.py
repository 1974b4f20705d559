"""Sampling in numpy: greedy, or with temperature, top-k, top-p, min-p and repetition penalty, from
a seed.

The order of the steps is that of transformers:
1. The repetition penalty (CTRL, Keskar et al. 2019): the logit of each token that occurred is
   divided by the penalty when it is positive and multiplied by it when it is negative.
2. The mask and the temperature.
3. Top-k keeps the k most likely tokens.
4. Top-p keeps the fewest most likely tokens whose share of the remaining probability is at least p.
5. Min-p (Nguyen et al. 2024) keeps the tokens with at least this share of the largest probability.

Every call with a temperature draws exactly one random number for any distribution. So the same seed
gives the same tokens with and without draft tokens. Reported log-probabilities are those of the
model, in nats: at temperature 1, without penalty, mask and truncation.

Cost for 49,152 tokens: greedy sampling needs one argmax, otherwise one exp and one cumulative sum.
Top-k and top-p find the most likely tokens with a partition and sort only those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...base.errors import BadInput
from ...base.sampling import Sampling

# The number of most likely tokens that top-p sorts first. Usually their probability is sufficient.
FIRST_PARTITION = 128
# The size of the blocks in which weights are summed before one block is searched.
BLOCK = 512


@dataclass(frozen=True, slots=True)
class Choice:
    """A chosen token.

    logprob: its log-probability in nats, None unless it was requested. top: the most likely tokens
    with their log-probabilities, the most likely first.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one text, one in each call of `choose`.

    It holds the state of the random generator and the set of tokens that occurred. prompt_ids: the
    tokens of the prompt, to which the repetition penalty also applies.
    """

    def __init__(self, sampling: Sampling, prompt_ids: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self._random = None
        if not sampling.is_greedy:
            self._random = np.random.default_rng(
                None if sampling.seed is None else sampling.seed % 2**64
            )
        self._has_penalty = sampling.repetition_penalty != 1
        self._text_tokens = set(prompt_ids) if self._has_penalty else set()
        self._penalty_ids = np.fromiter(self._text_tokens, np.int64, len(self._text_tokens))

    def choose(self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> Choice:
        """The next token.

        Args: logits (vocab,) of the next position, which are not changed; mask (vocab,) is True for
        the tokens that may be chosen. Raises BadInput for logits that are not finite, or a mask
        that allows no token.
        """
        scores = self._adjust(logits, mask)
        best = int(scores.argmax())
        if not math.isfinite(scores[best]):
            if mask is not None and not mask.any():
                raise BadInput("the answer cannot go on: no token is allowed")
            raise BadInput(
                "the model gives logits that are not finite; its weights, or the file, are damaged"
            )
        token = (
            best
            if self._random is None
            else self._draw(scores, float(scores[best]), self._random.random())
        )
        if self._has_penalty and token not in self._text_tokens:
            self._text_tokens.add(token)
            self._penalty_ids = np.append(self._penalty_ids, token)
        if self.sampling.logprobs is None:
            return Choice(token)
        return score_token(token, logits, self.sampling.logprobs)

    def _adjust(
        self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        """The logits after repetition penalty and mask."""
        scores = logits
        if self._has_penalty and len(self._penalty_ids):
            scores, penalty = logits.copy(), np.float32(self.sampling.repetition_penalty)
            text_logits = logits[self._penalty_ids]
            scores[self._penalty_ids] = np.where(
                text_logits > 0, text_logits / penalty, text_logits * penalty
            )
        if mask is not None:
            scores = np.where(mask, scores, np.float32(-np.inf))
        return scores

    def _draw(self, scores: NDArray[np.float32], best_score: float, uniform: float) -> int:
        """The token at `uniform` (0 to 1) of the cumulated probabilities that truncation leaves."""
        ids: NDArray[np.int64] | None = None
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if 0 < top_k < len(scores):
            ids = np.argpartition(scores, -top_k)[-top_k:]
            # The ids are sorted, so that the token does not depend on the order in which the
            # partition returns them.
            ids.sort()
            scores = scores[ids]
        weights = np.exp((scores - np.float32(best_score)) / np.float32(self.sampling.temperature))
        if top_p < 1:
            nucleus = _nucleus(weights, top_p)
            ids, weights = nucleus if ids is None else ids[nucleus], weights[nucleus]
        if self.sampling.min_p > 0:
            indices = np.flatnonzero(weights >= np.float32(self.sampling.min_p))
            ids, weights = indices if ids is None else ids[indices], weights[indices]
        index = _search_cumulative(weights, uniform)
        return index if ids is None else int(ids[index])


def top_indices(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest values (at most all), largest first; of equal values the one
    with the lower index comes first.
    """
    ids = np.arange(len(values))
    if count < len(values):
        ids = np.sort(np.argpartition(values, -count)[-count:])
    return ids[np.argsort(-values[ids], kind="stable")]


def score_token(token: int, logits: NDArray[np.float32], count: int) -> Choice:
    """`token` with its log-probability, and the `count` most likely tokens with theirs.

    Args: logits (vocab,) of the position of the token. Returns log-probabilities in nats.
    """
    highest = float(logits.max())
    total = highest + math.log(float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64)))
    top: tuple[tuple[int, float], ...] = ()
    if count:
        top = tuple((int(id), float(logits[id]) - total) for id in top_indices(logits, count))
    return Choice(token, float(logits[token]) - total, top)


def _search_cumulative(weights: NDArray[np.float32], uniform: float) -> int:
    """The index at which the cumulated weights exceed `uniform` (0 to 1) times their sum. The block
    of the index is searched first, then the index within the block.
    """
    block_starts = np.arange(0, len(weights), BLOCK)
    sums = np.cumsum(np.add.reduceat(weights, block_starts, dtype=np.float64))
    target = uniform * sums[-1]
    # By rounding, the target may equal the total. Then the last block with any weight is used.
    block = int(min(np.searchsorted(sums, target, side="right"), np.searchsorted(sums, sums[-1])))
    block_weights = weights[block * BLOCK : (block + 1) * BLOCK]
    mass = np.cumsum(block_weights, dtype=np.float64)
    index = int(np.searchsorted(mass, target - (sums[block - 1] if block else 0.0), side="right"))
    # The two sums of a block may differ in their last bits, so the index may lie after the block.
    # Then the last index with a weight above zero is used.
    if index >= len(mass):
        index = int(np.flatnonzero(block_weights)[-1])
    return block * BLOCK + index


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """Ascending indices of the fewest largest weights whose sum is at least `top_p` of the total;
    always at least one.
    """
    target = top_p * float(weights.sum(dtype=np.float64))
    size = FIRST_PARTITION
    while True:
        # Sorting values is several times faster than sorting indices by value.
        largest = weights if size >= len(weights) else np.partition(weights, -size)[-size:]
        largest = np.sort(largest)[::-1]
        mass = np.cumsum(largest, dtype=np.float64)
        if mass[-1] >= target or size >= len(weights):
            break
        size *= 16
    count = min(int(np.searchsorted(mass, target, side="left")) + 1, len(largest))
    smallest = largest[count - 1]
    larger, ties = np.flatnonzero(weights > smallest), np.flatnonzero(weights == smallest)
    return np.sort(np.concatenate([larger, ties[: count - len(larger)]]))
