"""From a request to the parameters of sampling, with the values for what a client left out."""

from __future__ import annotations

from ..base.sampling import Sampling
from ..inference.batching.batcher import PromptTooLong
from .errors import ApiError
from .limits import Limits
from .requests import BaseRequest, ChatRequest, CompletionRequest


def to_sampling(body: BaseRequest, prompt_tokens: int, capacity: int, limits: Limits) -> Sampling:
    """The parameters of sampling for a request.

    Args: body, the request; prompt_tokens, the length of its prompt; capacity, the tokens that
    prompt and answer may have together; limits of the server. Raises ApiError, PromptTooLong and
    UsageError.
    """
    room = capacity - prompt_tokens
    if room < 1:
        raise PromptTooLong(
            f"the prompt has {prompt_tokens} tokens, and the context holds {capacity} with the "
            "answer; shorten the prompt"
        )
    name, max_tokens = "max_tokens", body.max_tokens
    if isinstance(body, ChatRequest) and body.max_completion_tokens is not None:
        name, max_tokens = "max_completion_tokens", body.max_completion_tokens
    if max_tokens is not None and limits.max_tokens is not None and max_tokens > limits.max_tokens:
        raise ApiError(
            400,
            f"{name}: this server makes at most {limits.max_tokens}",
            param=name,
            code="invalid_value",
        )
    return Sampling(
        max_tokens=max_tokens if max_tokens is not None else min(room, limits.max_tokens or room),
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=body.top_p,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        seed=body.seed,
        stop=body.stop,
        logprobs=_logprobs(body),
    )


def _logprobs(body: BaseRequest) -> int | None:
    if isinstance(body, ChatRequest):
        return (body.top_logprobs or 0) if body.logprobs else None
    return body.logprobs if isinstance(body, CompletionRequest) else None
