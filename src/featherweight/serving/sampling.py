"""From a request to the settings of a sampler: which numbers decide when a client left them out."""

from __future__ import annotations

from ..inference.batching.batcher import PromptTooLong
from ..inference.sampling import Sampling
from .errors import ApiError
from .limits import Limits
from .requests import ChatRequest, CompletionRequest, Generation


def sampling(asked: Generation, prompt: int, capacity: int, limits: Limits) -> Sampling:
    """The sampler's settings for a prompt of `prompt` tokens.

    Raises ApiError, PromptTooLong and UsageError.
    """
    room = capacity - prompt
    if room < 1:
        raise PromptTooLong(
            f"the prompt has {prompt} tokens, and the context holds {capacity} with the answer; shorten the prompt"
        )
    name, wanted = "max_tokens", asked.max_tokens
    if isinstance(asked, ChatRequest) and asked.max_completion_tokens is not None:
        name, wanted = "max_completion_tokens", asked.max_completion_tokens
    if wanted is not None and limits.max_tokens is not None and wanted > limits.max_tokens:
        raise ApiError(
            400,
            f"{name}: this server makes at most {limits.max_tokens}",
            param=name,
            code="invalid_value",
        )
    return Sampling(
        max_tokens=wanted if wanted is not None else min(room, limits.max_tokens or room),
        temperature=asked.temperature,
        top_k=asked.top_k,
        top_p=asked.top_p,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        seed=asked.seed,
        stop=asked.stop,
        logprobs=_logprobs(asked),
    )


def _logprobs(asked: Generation) -> int | None:
    if isinstance(asked, ChatRequest):
        return (asked.top_logprobs or 0) if asked.logprobs else None
    return asked.logprobs if isinstance(asked, CompletionRequest) else None
