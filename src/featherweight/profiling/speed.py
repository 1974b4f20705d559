"""Tokens a second of an engine: one prompt read, then tokens chosen one after the other, greedily.

Decoding starts from one token, not from the prompt, because that is what llama-bench's `tg` does.
Choosing the largest logit is part of our time and not of llama-bench's, which feeds random tokens.
Timings of rivals are to be taken in turns, one round each, so that a busy minute hits them all.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..base.errors import UsageError
from ..inference.engine import Engine


@dataclass(frozen=True)
class Speed:
    """One round: tokens a second of prompt and answer, and the seconds that the first token took."""

    prefill: float
    decode: float
    first_token: float


def measure_speed(engine: Engine, prompt: int, tokens: int, seed: int = 0) -> Speed:
    """One round of `prompt` random tokens read at once, then `tokens` decoded greedily in a fresh
    session.

    Raises UsageError when the model's context holds neither.
    """
    if prompt < 1 or tokens < 1:
        raise UsageError(f"{prompt} tokens of prompt and {tokens} of answer: at least one of each")
    if max(prompt, tokens) > engine.context:
        raise UsageError(
            f"{max(prompt, tokens)} tokens do not fit this model's context of {engine.context}; "
            "ask for a shorter prompt and fewer tokens"
        )
    ids = np.random.default_rng(seed).integers(0, engine.vocab_size, prompt)
    session = engine.session(prompt)
    start = time.perf_counter()
    token = int(engine.forward(session, ids)[0].argmax())
    first_token = time.perf_counter() - start
    session.close()
    session = engine.session(tokens)
    start = time.perf_counter()
    for _ in range(tokens):
        token = int(engine.step([session], [token])[0].argmax())
    seconds = time.perf_counter() - start
    session.close()
    return Speed(prompt / first_token, tokens / seconds, first_token)
