"""Rollouts through an engine: the samples of `models.sampling.rollouts`, computed by the native
engine or by any other.

Random numbers, log-probabilities and endings are the same code, so the samples differ from those of
the same model in torch by rounding only: that of the order of sums, and of activations in 8 bits
where the engine rounds them. The log-probabilities are those of the engine's logits, that is of the
policy that was sampled. A prompt is computed once, and its session is forked for each sample.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from ..base.sampling import Sampling
from ..models.sampling import BATCH_SIZE, Rollouts, collect
from ..models.text_rows import Ids, TextRows
from .engine import Engine, Session


def engine_rollouts(
    engine: Engine,
    prompts: Sequence[Ids],
    samples: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
    *,
    end_ids: Collection[int] = (),
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Rollouts:
    """`samples` texts of `engine` for each prompt, on the CPU.

    end_ids: the tokens that end a text. Other arguments and errors as in
    `models.sampling.rollouts`.
    """
    return collect(
        EngineRows(engine),
        prompts,
        samples,
        sampling or Sampling(),
        seed,
        end_ids=end_ids,
        tokenizer=tokenizer,
        batch_size=batch_size,
    )


class EngineRows(TextRows):
    """A session for each row."""

    def __init__(self, engine: Engine) -> None:
        self.vocab_size, self.context = engine.vocab_size, engine.context
        self.device = torch.device("cpu")
        self._engine = engine
        self._sessions: list[Session] = []

    def start(
        self, prompts: Sequence[Ids], repeats: Sequence[int], max_tokens: int
    ) -> Float[Tensor, "prompts vocab"]:
        self.close()
        logits = []
        for prompt, repeat in zip(prompts, repeats, strict=True):
            session = self._engine.session(len(prompt) + max_tokens)
            self._sessions.append(session)
            logits.append(torch.from_numpy(self._engine.forward(session, prompt)))
            for _ in range(repeat - 1):
                self._sessions.append(session.fork())
        return torch.cat(logits)

    def step(self, tokens: Int64[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        ids, size = tokens.tolist(), self._engine.max_batch
        return torch.cat(
            [
                torch.from_numpy(
                    self._engine.step(
                        self._sessions[start : start + size], ids[start : start + size]
                    )
                )
                for start in range(0, len(ids), size)
            ]
        )

    def keep(self, order: Sequence[int]) -> None:
        for row in set(range(len(self._sessions))) - set(order):
            self._sessions[row].close()
        self._sessions = [self._sessions[row] for row in order]

    def close(self) -> None:
        for session in self._sessions:
            session.close()
        self._sessions = []
