"""From logits to a token: greedy, or temperature, top-k, top-p, min-p and repetition penalty, from
a seed.

Order, as in transformers: repetition penalty (Keskar et al. 2019, CTRL: logits of tokens that
occurred are divided by it when positive, multiplied when negative), mask, temperature, top-k, top-p
(the fewest likeliest tokens with that much of what top-k left), min-p (Nguyen et al. 2024: at least
that share of the likeliest token's probability).

Every call with a temperature draws exactly one number, whatever the distribution looks like, so the
same seed gives the same tokens however they were proposed. Log-probabilities are those of the
model: temperature 1, before penalty, mask and truncation, in nats.

Cost at 49,152 tokens: greedy one pass of argmax; sampling one exp and one cumulative sum; top-k and
top-p look at the likeliest few through a partition and sort only those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base.errors import BadInput, UsageError

MAX_STOPS, MAX_STOP_LENGTH, MAX_LOGPROBS = 16, 500, 20
GREEDY_BELOW = (
    1e-4  # colder than this, float32 logits divided by it say nothing but which one is largest
)
FIRST_LOOK = 128  # tokens that top-p sorts first; most of the time they hold its mass
BLOCK = 512  # weights that are summed before one is looked for among them


@dataclass(frozen=True)
class Sampling:
    """How to choose tokens and when to stop.

    Raises UsageError, naming the field, for values that cannot work.
    """

    max_tokens: int = 256
    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None  # None: another text each time
    stop: tuple[str, ...] = ()  # text ends before the first of these
    logprobs: int | None = None  # None: none; n: the chosen token's, and those of the n likeliest

    def __post_init__(self) -> None:
        _whole("max_tokens", self.max_tokens, 1, 1_000_000)
        _real("temperature", self.temperature, 0, 10)
        _whole("top_k", self.top_k, 0, 1_000_000)
        _real("top_p", self.top_p, 0, 1, above=True)
        _real("min_p", self.min_p, 0, 1)
        _real("repetition_penalty", self.repetition_penalty, 0, 10, above=True)
        if self.seed is not None:
            _whole("seed", self.seed, -(2**63), 2**64 - 1)
        if self.logprobs is not None:
            _whole("logprobs", self.logprobs, 0, MAX_LOGPROBS)
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise UsageError("stop should be a few texts")
        if len(self.stop) > MAX_STOPS:
            raise UsageError(f"stop has {len(self.stop)} texts; at most {MAX_STOPS}")
        for text in self.stop:
            if not 1 <= len(text) <= MAX_STOP_LENGTH:
                raise UsageError(f"a stop text has {len(text)} characters; 1 to {MAX_STOP_LENGTH}")

    @property
    def greedy(self) -> bool:
        """Whether nothing is left to chance."""
        return self.temperature < GREEDY_BELOW


@dataclass(frozen=True, slots=True)
class Choice:
    """A token and, when asked for, its log-probability and the likeliest (id, log-probability),
    best first.
    """

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one text, one `choose` each; remembers its random stream and which
    tokens occurred.
    """

    def __init__(self, sampling: Sampling, prompt_ids: Iterable[int] = ()) -> None:
        self.sampling = sampling
        self._random = None
        if not sampling.greedy:
            self._random = np.random.default_rng(
                None if sampling.seed is None else sampling.seed % 2**64
            )
        self._penalised = sampling.repetition_penalty != 1
        self._seen = set(prompt_ids) if self._penalised else set()
        self._seen_ids = np.fromiter(self._seen, np.int64, len(self._seen))

    def choose(self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None = None) -> Choice:
        """The next token from `logits` (vocab,), among those that `mask` allows; `logits` stay as
        they are.

        Raises BadInput for logits that are not finite, or a mask that allows nothing.
        """
        scores = self._modified(logits, mask)
        best = int(scores.argmax())
        if not math.isfinite(scores[best]):
            if mask is not None and not mask.any():
                raise BadInput(
                    "nothing that was asked for can follow this text: no token is allowed"
                )
            raise BadInput(
                "the model gives logits that are not finite; its weights, or the file, are damaged"
            )
        token = (
            best
            if self._random is None
            else self._draw(scores, float(scores[best]), self._random.random())
        )
        if self._penalised and token not in self._seen:
            self._seen.add(token)
            self._seen_ids = np.append(self._seen_ids, token)
        if self.sampling.logprobs is None:
            return Choice(token)
        return self._with_logprobs(token, logits, self.sampling.logprobs)

    def _modified(
        self, logits: NDArray[np.float32], mask: NDArray[np.bool_] | None
    ) -> NDArray[np.float32]:
        scores = logits
        if self._penalised and len(self._seen_ids):
            scores, penalty = logits.copy(), np.float32(self.sampling.repetition_penalty)
            before = logits[self._seen_ids]
            scores[self._seen_ids] = np.where(before > 0, before / penalty, before * penalty)
        if mask is not None:
            scores = np.where(mask, scores, np.float32(-np.inf))
        return scores

    def _draw(self, scores: NDArray[np.float32], best: float, uniform: float) -> int:
        """The token at `uniform` (0 to 1) of the cumulated probabilities that truncation leaves."""
        ids: NDArray[np.int64] | None = None
        top_k, top_p = self.sampling.top_k, self.sampling.top_p
        if 0 < top_k < len(scores):
            ids = np.argpartition(scores, -top_k)[-top_k:]
            # In the vocabulary's order, so that the outcome does not hang on how the partition left
            # them.
            ids.sort()
            scores = scores[ids]
        weights = np.exp((scores - np.float32(best)) / np.float32(self.sampling.temperature))
        if top_p < 1:
            kept = _nucleus(weights, top_p)
            ids, weights = kept if ids is None else ids[kept], weights[kept]
        if self.sampling.min_p > 0:
            kept = np.flatnonzero(weights >= np.float32(self.sampling.min_p))
            ids, weights = kept if ids is None else ids[kept], weights[kept]
        place = _place(weights, uniform)
        return place if ids is None else int(ids[place])

    def _with_logprobs(self, token: int, logits: NDArray[np.float32], count: int) -> Choice:
        highest = float(logits.max())
        total = highest + math.log(
            float(np.exp(logits - np.float32(highest)).sum(dtype=np.float64))
        )
        top: tuple[tuple[int, float], ...] = ()
        if count:
            likely = likeliest(logits, count)
            top = tuple((int(id), float(logits[id]) - total) for id in likely)
        return Choice(token, float(logits[token]) - total, top)


def likeliest(values: NDArray[np.float32], count: int) -> NDArray[np.int64]:
    """Indices of the `count` largest (at most all), largest first, the earlier of equals first."""
    ids = np.arange(len(values))
    if count < len(values):
        ids = np.sort(np.argpartition(values, -count)[-count:])
    return ids[np.argsort(-values[ids], kind="stable")]


def _place(weights: NDArray[np.float32], uniform: float) -> int:
    """Where the cumulated weights pass `uniform` (0 to 1) of their sum; of many, first in which
    block of them.
    """
    begins = np.arange(0, len(weights), BLOCK)
    sums = np.cumsum(np.add.reduceat(weights, begins, dtype=np.float64))
    target = uniform * sums[-1]
    # Rounding may put the target at the very end: then the last block that has any weight.
    block = int(min(np.searchsorted(sums, target, side="right"), np.searchsorted(sums, sums[-1])))
    inside = weights[block * BLOCK : (block + 1) * BLOCK]
    mass = np.cumsum(inside, dtype=np.float64)
    place = int(np.searchsorted(mass, target - (sums[block - 1] if block else 0.0), side="right"))
    # The two sums of a block may differ in their last bits; what has no weight is never chosen.
    return block * BLOCK + (place if place < len(mass) else int(np.flatnonzero(inside)[-1]))


def _nucleus(weights: NDArray[np.float32], top_p: float) -> NDArray[np.int64]:
    """Indices, ascending, of the fewest largest weights whose sum reaches `top_p` of the total; at
    least one.
    """
    wanted = top_p * float(weights.sum(dtype=np.float64))
    look = FIRST_LOOK
    while True:
        # Values alone sort several times faster than an order of indices.
        largest = weights if look >= len(weights) else np.partition(weights, -look)[-look:]
        largest = np.sort(largest)[::-1]
        mass = np.cumsum(largest, dtype=np.float64)
        if mass[-1] >= wanted or look >= len(weights):
            break
        look *= 16
    count = min(int(np.searchsorted(mass, wanted, side="left")) + 1, len(largest))
    smallest = largest[count - 1]
    above, equal = np.flatnonzero(weights > smallest), np.flatnonzero(weights == smallest)
    return np.sort(np.concatenate([above, equal[: count - len(above)]]))


def _whole(name: str, value: object, low: int, high: int) -> None:
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, np.integer))
        or not low <= value <= high
    ):
        raise UsageError(f"{name}={value!r}: a whole number from {low} to {high}")


def _real(name: str, value: object, low: float, high: float, above: bool = False) -> None:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        # A NaN fails every comparison.
        if (low < value if above else low <= value) and value <= high:
            return
    raise UsageError(f"{name}={value!r}: a number {'above' if above else 'from'} {low} to {high}")
