"""Answers to many prompts, generated side by side: a step of the engine serves several of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from ..base.errors import UsageError
from ..base.sampling import Sampling
from ..inference.batching.batcher import Batcher
from ..inference.engine import Engine
from ..inference.text.tokenizer import ChatTokenizer

MAX_SLOTS = 8


@dataclass(frozen=True)
class Answer:
    """text: without special tokens and without the stop string; tokens: with the end token; finish:
    "stop", or "length" for an answer that was cut; is_truncated: whether the prompt lost its
    beginning to fit the model.
    """

    text: str
    tokens: tuple[int, ...]
    finish: str
    is_truncated: bool

    @property
    def num_tokens(self) -> int:
        """Tokens of the answer, with its end token."""
        return len(self.tokens)


def generate_answers(
    engine: Engine,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    samplings: Sequence[Sampling],
) -> Iterator[Answer]:
    """The answer to each prompt (token ids), in order, each with its own sampling.

    Raises UsageError, before any work, for an empty prompt and for answers that may be longer than
    the model's context.
    """
    if not prompts:
        return
    longest = max(sampling.max_tokens for sampling in samplings)
    if longest >= engine.context:
        raise UsageError(
            f"answers of {longest} tokens do not fit the model's context of {engine.context}"
        )
    # A prompt that is too long keeps its end, where the question is.
    rooms = [engine.context - sampling.max_tokens for sampling in samplings]
    endings = [prompt[-room:] for prompt, room in zip(prompts, rooms, strict=True)]
    sizes = [len(ids) + s.max_tokens for ids, s in zip(endings, samplings, strict=True)]
    num_slots = min(MAX_SLOTS, engine.max_batch, len(prompts))
    batcher = Batcher(engine, tokenizer, num_slots, max(sizes), queue_limit=len(prompts))
    with closing(batcher):
        # All at once, so that the same prompts share a step in every run: an engine may round a row
        # otherwise in another batch.
        requests = batcher.submit_all(endings, samplings)
        for prompt, room, request in zip(prompts, rooms, requests, strict=True):
            deltas = list(request)
            text = "".join(delta.text for delta in deltas)
            tokens = tuple(token for delta in deltas for token in delta.tokens)
            yield Answer(text, tokens, str(deltas[-1].finish), len(prompt) > room)
