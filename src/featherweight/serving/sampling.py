"""From a request to the parameters of sampling, with the values for what a client left out."""

from __future__ import annotations

from dataclasses import replace

from ..base.sampling import Sampling
from ..inference.batching.batcher import PromptTooLong
from .fields import invalid_value
from .limits import Limits
from .requests import BaseRequest


def to_sampling(body: BaseRequest, prompt_tokens: int, capacity: int, limits: Limits) -> Sampling:
    """The parameters of sampling for a request.

    Args: body, the request; prompt_tokens, the length of its prompt; capacity, the tokens that
    prompt and answer may have together; limits of the server. A request for no tokens at all gets
    those for one. Raises ApiError, PromptTooLong and UsageError.
    """
    name, max_tokens = body.length_limit
    room = capacity - prompt_tokens
    if room < (1 if max_tokens != 0 else 0):
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens, and the context holds {capacity} with the "
            "answer; shorten the prompt"
        )
    if max_tokens is not None and limits.max_tokens is not None and max_tokens > limits.max_tokens:
        raise invalid_value(name, f"{name}: this server makes at most {limits.max_tokens}")
    if max_tokens is None:
        max_tokens = min(room, limits.max_tokens or room)
    return Sampling(
        max_tokens=max(max_tokens, 1),
        temperature=body.temperature,
        top_k=max(body.top_k, 0),
        top_p=body.top_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=body.stop,
        logprobs=body.logprobs_limit,
    )


def for_choice(sampling: Sampling, number: int) -> Sampling:
    """The parameters of choice `number` (from 0) of the same request: each has its own seed."""
    return sampling if sampling.seed is None else replace(sampling, seed=sampling.seed + number)
