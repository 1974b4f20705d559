"""Measures the tokens per second of an engine: the prefill of one prompt, then greedy decoding.

Decoding starts from one token and not from the prompt, because the figure `tg` of llama-bench is
measured like this. Our time includes the choice of the largest logit; llama-bench decodes random
tokens and chooses none. When several programs are compared, their rounds should alternate, so that
another process which uses the machine for a while slows all of them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ..base.errors import UsageError
from ..inference.engine import Engine


@dataclass(frozen=True)
class Speed:
    """One round: tokens per second of the prefill and of decoding, and the seconds to the first
    token.
    """

    prefill: float
    decode: float
    first_token: float


def measure_speed(engine: Engine, prompt: int, tokens: int, seed: int = 0) -> Speed:
    """Measure one round of an engine.

    Args: prompt, the number of random tokens of the prefill; tokens, the number of tokens that are
    then decoded greedily in a new session; seed, of the prompt. Raises UsageError when one of the
    numbers is below 1 or larger than the context of the model.
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
