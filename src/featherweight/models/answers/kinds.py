"""How much of a distribution is kept. Each kind turns logits into the tensors of a file, and reads
them back.

| kind | tensors of a window | bytes a position |
|---|---|---|
| `Full` | logits | vocabulary x 2 (float16) or x 4 |
| `TopK` | ids, log_p, log_tail, drawn | k x 4 (float16, vocabulary up to 65,536) + draws x 2 + 8 |
| `Sampled` | ids | draws x 2 + 4 |

`TopK` keeps the exact mass of the other tokens, as the logarithm of the sum over the complement, so
a student that learns from it is not over-confident. Which of the others have that mass, it knows
from `draws` of them only. `Sampled` keeps draws alone: their frequencies are the distribution in
expectation (Anshumann et al. 2025), at fewer bytes than a large k.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...base.errors import UsageError
from .draws import draw_evenly, log_frequencies
from .rows import FullAnswer, SparseAnswer

DTYPES = {"float16": torch.float16, "float32": torch.float32}
# Ids of larger vocabularies take four bytes.
SMALL_VOCABULARY = 1 << 16
# Rows whose float32 log-probabilities are held at once.
ROWS = 64


class Kind(ABC):
    """What is kept of a distribution. `name`: in the header. `dtype`: of the numbers."""

    name: str
    dtype: str

    @abstractmethod
    def tensors(
        self,
        logits: Float[Tensor, "length vocabulary"],
        targets: Int[Tensor, " length"],
        temperature: float,
        seed: int,
    ) -> dict[str, Tensor]:
        """What a file holds of one window. seed: of the draws, if there are any."""

    @abstractmethod
    def read(self, tokens: Tensor, tensors: Mapping[str, Tensor]) -> FullAnswer | SparseAnswer:
        """The answer of a window from its tensors."""

    @abstractmethod
    def bytes_per_position(self, vocabulary: int) -> int:
        """The size of the tensors."""

    def check(self, vocabulary: int, temperature: float) -> None:
        """Raise UsageError when the kind cannot hold such distributions."""
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype={self.dtype!r} is not stored; try {' or '.join(DTYPES)}")
        if not 0 < temperature < math.inf:
            raise UsageError(f"temperature={temperature}: distributions need one above 0")

    def settings(self) -> dict[str, Any]:
        """The fields, for the header."""
        return {"kind": self.name, **self.__dict__}


@dataclass(frozen=True)
class Full(Kind):
    """All logits. float16 rounds them by up to 2^-11 of their size (a KL of 3e-6 for SmolLM2)."""

    dtype: str = "float16"
    name = "full"

    def check(self, vocabulary: int, temperature: float) -> None:
        """Raise UsageError for another temperature than 1, which logits do not need."""
        super().check(vocabulary, temperature)
        if temperature != 1:
            raise UsageError(
                f"temperature={temperature}: full answers are logits, which serve every "
                "temperature; leave it out"
            )

    def tensors(
        self, logits: Tensor, targets: Tensor, temperature: float, seed: int
    ) -> dict[str, Tensor]:
        """`logits` in the stored dtype. Raises UsageError when they do not fit into it."""
        numbers = logits.to(DTYPES[self.dtype])
        if self.dtype == "float16" and not torch.isfinite(numbers).all():
            raise UsageError("logits beyond 65,504 do not fit into float16; use dtype float32")
        return {"logits": numbers}

    def read(self, tokens: Tensor, tensors: Mapping[str, Tensor]) -> FullAnswer:
        """The logits in float32."""
        return FullAnswer(tokens, tensors["logits"].float())

    def bytes_per_position(self, vocabulary: int) -> int:
        """The logits."""
        return vocabulary * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class TopK(Kind):
    """The k largest probabilities, the exact mass of the others, and that of the next token.

    draws: so many of the others are drawn by their probability, and a student learns that each of
    them has 1/draws of their mass. That makes the gradient that of the whole KL in expectation.
    """

    k: int = 64
    dtype: str = "float16"
    draws: int = 0
    name = "top_k"

    def check(self, vocabulary: int, temperature: float) -> None:
        """Raise UsageError unless 1 <= k <= vocabulary and 0 <= draws."""
        super().check(vocabulary, temperature)
        if not 1 <= self.k <= vocabulary:
            raise UsageError(f"k={self.k} of a vocabulary of {vocabulary} tokens")
        if self.draws < 0:
            raise UsageError(f"draws={self.draws} cannot be negative")

    def tensors(
        self, logits: Tensor, targets: Tensor, temperature: float, seed: int
    ) -> dict[str, Tensor]:
        """ids, log_p, log_tail and log_target; drawn, with draws."""
        generator = torch.Generator().manual_seed(seed)
        pieces = []
        for part in _parts(len(logits)):
            scores = logits[part].float() / temperature
            top = scores.topk(self.k, -1)
            smallest = top.values[:, -1:]
            # The others are compared with the smallest of the k, so their exponentials are at most
            # 1, and a small mass keeps its digits.
            masses = torch.sub(scores, smallest).exp_().scatter_(-1, top.indices, 0.0)
            log_rest = masses.sum(-1).log() + smallest[:, 0]
            log_sum = torch.logaddexp(log_rest, top.values.logsumexp(-1))
            target = scores.gather(-1, targets[part, None])[:, 0]
            piece = {
                "ids": top.indices.to(_id_dtype(logits.shape[-1])),
                "log_p": (top.values - log_sum[:, None]).to(DTYPES[self.dtype]),
                "log_tail": log_rest - log_sum,
                "log_target": target - log_sum,
            }
            if self.draws:
                piece["drawn"] = draw_evenly(masses, self.draws, generator).to(piece["ids"].dtype)
            pieces.append(piece)
        return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

    def read(self, tokens: Tensor, tensors: Mapping[str, Tensor]) -> SparseAnswer:
        """The rounded log-probabilities, shifted so that with the tail they add up to 1."""
        log_p, log_tail = tensors["log_p"].float(), tensors["log_tail"]
        # 1 - exp(log_tail) by the form that keeps its digits where the tail is small.
        log_mass = torch.log(-torch.expm1(log_tail))
        log_p = log_p + (log_mass - log_p.logsumexp(-1))[:, None]
        ids = tensors["ids"].to(torch.int64)
        drawn = tensors["drawn"].to(torch.int64) if self.draws else None
        return SparseAnswer(tokens, ids, log_p, log_tail, tensors["log_target"], drawn)

    def bytes_per_position(self, vocabulary: int) -> int:
        """Ids, numbers, tail, target and draws."""
        id_bytes = _id_dtype(vocabulary).itemsize
        return self.k * (id_bytes + DTYPES[self.dtype].itemsize) + self.draws * id_bytes + 8


@dataclass(frozen=True)
class Sampled(Kind):
    """`draws` tokens drawn from each distribution, see `draw_evenly`."""

    draws: int = 12
    name = "sampled"
    dtype = "float32"

    def check(self, vocabulary: int, temperature: float) -> None:
        """Raise UsageError without a draw."""
        super().check(vocabulary, temperature)
        if self.draws < 1:
            raise UsageError(f"draws={self.draws}: at least one token is drawn a position")

    def tensors(
        self, logits: Tensor, targets: Tensor, temperature: float, seed: int
    ) -> dict[str, Tensor]:
        """The ids of the draws, sorted, and log_target."""
        generator = torch.Generator().manual_seed(seed)
        ids, log_target = [], []
        for part in _parts(len(logits)):
            log_p = torch.log_softmax(logits[part].float() / temperature, -1)
            ids.append(draw_evenly(log_p.exp(), self.draws, generator))
            log_target.append(log_p.gather(-1, targets[part, None])[:, 0])
        return {
            "ids": torch.cat(ids).to(_id_dtype(logits.shape[-1])),
            "log_target": torch.cat(log_target),
        }

    def read(self, tokens: Tensor, tensors: Mapping[str, Tensor]) -> SparseAnswer:
        """The frequencies of the drawn tokens; nothing is known of the others (log_tail -inf)."""
        ids = tensors["ids"].to(torch.int64)
        log_p = log_frequencies(ids)
        order = log_p.argsort(dim=-1, descending=True, stable=True)
        return SparseAnswer(
            tokens,
            ids.gather(-1, order),
            log_p.gather(-1, order),
            torch.full_like(tensors["log_target"], -math.inf),
            tensors["log_target"],
        )

    def bytes_per_position(self, vocabulary: int) -> int:
        """Ids and target."""
        return self.draws * _id_dtype(vocabulary).itemsize + 4


KINDS: Mapping[str, type[Kind]] = {kind.name: kind for kind in (Full, TopK, Sampled)}


def _id_dtype(vocabulary: int) -> torch.dtype:
    """The smallest integers that hold every id."""
    return torch.uint16 if vocabulary <= SMALL_VOCABULARY else torch.int32


def _parts(count: int) -> list[slice]:
    return [slice(start, start + ROWS) for start in range(0, count, ROWS)]
