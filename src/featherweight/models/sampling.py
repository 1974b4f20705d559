"""Samples of a model for training, with exact log-probabilities.

    samples = rollouts(model, prompts, 8, Sampling(temperature=1.0, max_tokens=256), seed=0)

Each text has a random generator of its own, seeded from `seed`, the ids of its prompt and its
number among the samples of that prompt (equal prompts go on counting). It gives one number a token.
So the random numbers of a text depend on neither the batch size, nor the order of the prompts, nor
which other texts have ended. What remains is rounding: torch sums the products of a batch of
another size in another order. Logits then differ in their last bits (about 1e-6 in float32), and a
token differs when its random number lies that close to the border between two tokens. In float64
this does not happen in practice; in bfloat16 it is far more frequent than in float32.

A text ends with an end token, which belongs to it (and to `mask`), after a stop text, or at
`max_tokens`. Log-probabilities are those of `ops.sampling.batched`: at the sampling temperature, of
the full softmax and of the truncated distribution.

Texts are sorted by the length of their prompts and sampled `batch_size` at a time. Memory: keys and
values of batch_size x (longest prompt + max_tokens) positions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ..base.errors import UsageError
from ..base.sampling import Sampling
from ..base.seeds import seed_of
from ..ops.sampling.batched import draw
from .structure import evaluation_mode
from .text_rows import Ids, ModelRows, TextRows

Finish = Literal["end", "stop", "length"]
BATCH_SIZE = 64


@dataclass(frozen=True)
class Rollouts:
    """Sampled texts, `samples` of each prompt in turn, padded at the end.

    tokens: prompt and answer. prompt_lengths: tokens of the prompt. mask: True at the tokens of the
    answer, with the end token. logprobs, truncated_logprobs: of the token at the same position, in
    nats, 0 outside the mask; of the full softmax at the sampling temperature, and of the
    distribution that truncation leaves, from which the token was drawn. group: the index of the
    prompt. finish: "end" (an end token), "stop" (a stop text) or "length" (`max_tokens`).
    """

    tokens: Int64[Tensor, "texts length"]
    prompt_lengths: Int64[Tensor, " texts"]
    mask: Bool[Tensor, "texts length"]
    logprobs: Float[Tensor, "texts length"]
    truncated_logprobs: Float[Tensor, "texts length"]
    group: Int64[Tensor, " texts"]
    finish: tuple[Finish, ...]

    def answer(self, index: int) -> list[int]:
        """The tokens of one answer, with its end token."""
        ids: list[int] = self.tokens[index][self.mask[index]].tolist()
        return ids

    @property
    def lengths(self) -> Int64[Tensor, " texts"]:
        """Tokens of each answer."""
        return self.mask.sum(-1)


def rollouts(
    model: nn.Module,
    prompts: Sequence[Ids],
    samples: int = 1,
    sampling: Sampling | None = None,
    seed: int = 0,
    *,
    end_ids: Collection[int] | None = None,
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Rollouts:
    """`samples` texts of `model` for each prompt, on the device of the model.

    Args: model, a causal language model of transformers, which is in evaluation mode meanwhile
    (with compressed layers, call this inside `keep_decoded`); prompts, the ids of each; sampling
    (None: temperature 1, 256 tokens), without a seed; seed; end_ids, the tokens that end a text
    (None: those of the model's configuration); tokenizer, needed for the stop texts of `sampling`;
    batch_size, texts that are sampled at once. Raises UsageError for settings that cannot work and
    for prompts that leave no room in the model's context, Unsupported for recurrent models,
    BadInput for logits that are not finite.
    """
    ends = end_tokens(model) if end_ids is None else end_ids
    # Parameters keep `requires_grad`: without it torch 2.13 takes a slower path through the
    # products of a prompt (17 % on SmolLM2), although nothing is differentiated here.
    with evaluation_mode(model):
        return collect(
            ModelRows(model),
            prompts,
            samples,
            sampling or Sampling(),
            seed,
            end_ids=ends,
            tokenizer=tokenizer,
            batch_size=batch_size,
        )


def end_tokens(model: Any) -> set[int]:
    """The end tokens that the model's generation settings name, else those of its configuration."""
    for settings in (getattr(model, "generation_config", None), model.config):
        ids = getattr(settings, "eos_token_id", None)
        if ids is not None:
            return {ids} if isinstance(ids, int) else set(ids)
    return set()


@dataclass
class _Text:
    """One text in the making. number: among the samples of equal prompts."""

    group: int
    number: int
    prompt: Ids
    random: np.random.Generator
    answer: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    truncated_logprobs: list[float] = field(default_factory=list)
    finish: Finish | None = None


def text_seed(seed: int, prompt: Ids, number: int) -> int:
    """The seed of sample `number` of `prompt`. `Sampling(seed=...)` with it gives the same text in
    `fw.generate`, up to rounding.
    """
    return seed_of("rollouts", seed, ",".join(map(str, prompt)), number)


def collect(
    rows: TextRows,
    prompts: Sequence[Ids],
    samples: int,
    sampling: Sampling,
    seed: int,
    *,
    end_ids: Collection[int] = (),
    tokenizer: Any = None,
    batch_size: int = BATCH_SIZE,
) -> Rollouts:
    """The texts of `rollouts` from any kind of rows, which are closed afterwards."""
    ids = [tuple(map(int, prompt)) for prompt in prompts]
    _check(rows, ids, samples, sampling, tokenizer, batch_size)
    counts: Counter[Ids] = Counter()
    texts = []
    for group, prompt in enumerate(ids):
        for number in range(counts[prompt], counts[prompt] + samples):
            random = np.random.default_rng(text_seed(seed, prompt, number))
            texts.append(_Text(group, number, prompt, random))
        counts[prompt] += samples
    order = sorted(texts, key=lambda text: (len(text.prompt), text.group))
    endings = _Endings(sampling, frozenset(end_ids), tokenizer)
    with closing(rows):
        for start in range(0, len(order), batch_size):
            _sample(rows, order[start : start + batch_size], sampling, endings)
    return _pack(texts, min(end_ids, default=0), rows.device)


def _check(
    rows: TextRows,
    prompts: Sequence[Ids],
    samples: int,
    sampling: Sampling,
    tokenizer: Any,
    batch_size: int,
) -> None:
    if not prompts or not all(map(len, prompts)) or samples < 1 or batch_size < 1:
        raise UsageError(
            f"{samples} samples of {len(prompts)} prompts, {batch_size} at a time: give at least "
            "one of each, and at least one token a prompt"
        )
    if sampling.seed is not None or sampling.logprobs is not None:
        raise UsageError(
            "rollouts have a seed of their own and always have log-probabilities; leave seed and "
            "logprobs out of `sampling`"
        )
    if sampling.stop and tokenizer is None:
        raise UsageError("to stop at texts, rollouts need the tokenizer")
    for index, prompt in enumerate(prompts):
        if not 0 <= min(prompt) <= max(prompt) < rows.vocab_size:
            raise UsageError(
                f"prompt {index} has tokens outside the vocabulary of {rows.vocab_size}"
            )
        if rows.context is not None and len(prompt) + sampling.max_tokens > rows.context:
            raise UsageError(
                f"prompt {index} has {len(prompt)} tokens, and {sampling.max_tokens} more do not "
                f"fit into the model's context of {rows.context}; lower max_tokens"
            )


class _Endings:
    """Says whether and why a text has ended."""

    def __init__(self, sampling: Sampling, end_ids: frozenset[int], tokenizer: Any) -> None:
        self.sampling, self.end_ids, self.tokenizer = sampling, end_ids, tokenizer
        # A character has at most four bytes, and a token at least one.
        self.window = 4 * max(map(len, sampling.stop), default=0) + 4

    def finish(self, answer: list[int]) -> Finish | None:
        """Why `answer` has ended; None when it goes on."""
        if answer[-1] in self.end_ids:
            return "end"
        if self.sampling.stop:
            text = self.tokenizer.decode(answer[-self.window :], skip_special_tokens=True)
            if any(stop in text for stop in self.sampling.stop):
                return "stop"
        return "length" if len(answer) >= self.sampling.max_tokens else None


def _sample(rows: TextRows, texts: list[_Text], sampling: Sampling, endings: _Endings) -> None:
    """Sample `texts`, in which equal prompts follow each other, to their ends."""
    prompts: list[Ids] = []
    repeats: list[int] = []
    for index, text in enumerate(texts):
        if index and text.group == texts[index - 1].group:
            repeats[-1] += 1
        else:
            prompts.append(text.prompt)
            repeats.append(1)
    logits = rows.start(prompts, repeats, sampling.max_tokens)
    logits = logits.repeat_interleave(torch.tensor(repeats, device=logits.device), 0)
    occurrences = _occurrences(texts, logits) if sampling.repetition_penalty != 1 else None
    live = texts
    while True:
        uniforms = torch.from_numpy(np.array([text.random.random() for text in live]))
        drawn = draw(logits, sampling, uniforms.to(logits.device), occurrences)
        columns = (drawn.logprobs.tolist(), drawn.truncated_logprobs.tolist())
        for text, token, *logprobs in zip(live, drawn.tokens.tolist(), *columns, strict=True):
            text.answer.append(token)
            text.logprobs.append(logprobs[0])
            text.truncated_logprobs.append(logprobs[1])
            text.finish = endings.finish(text.answer)
        tokens = drawn.tokens
        order = _compact([text.finish is None for text in live])
        if not order:
            return
        if occurrences is not None:
            occurrences[torch.arange(len(live), device=tokens.device), tokens] = True
        if len(order) < len(live):
            rows.keep(order)
            indices = torch.tensor(order, device=tokens.device)
            tokens, live = tokens[indices], [live[index] for index in order]
            occurrences = None if occurrences is None else occurrences[indices]
        logits = rows.step(tokens)


def _compact(is_live: Sequence[bool]) -> list[int]:
    """The order of the live rows in which as few as possible move: the last ones fill the gaps."""
    count = sum(is_live)
    tail = iter([row for row in range(count, len(is_live)) if is_live[row]])
    return [row if is_live[row] else next(tail) for row in range(count)]


def _occurrences(texts: Sequence[_Text], logits: Tensor) -> Bool[Tensor, "rows vocab"]:
    mask = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
    for row, text in zip(mask, texts, strict=True):
        row[torch.tensor(list(text.prompt), device=logits.device)] = True
    return mask


def _pack(texts: Sequence[_Text], padding: int, device: torch.device) -> Rollouts:
    """The texts as padded tensors on `device`."""
    shape = (len(texts), max(len(text.prompt) + len(text.answer) for text in texts))
    tokens = torch.full(shape, padding, dtype=torch.int64, device="cpu")
    logprobs, truncated_logprobs = (torch.zeros(shape, device="cpu") for _ in range(2))
    mask = torch.zeros(shape, dtype=torch.bool, device="cpu")
    for row, text in enumerate(texts):
        start, end = len(text.prompt), len(text.prompt) + len(text.answer)
        tokens[row, :end] = torch.tensor([*text.prompt, *text.answer], device="cpu")
        logprobs[row, start:end] = torch.tensor(text.logprobs, device="cpu")
        truncated_logprobs[row, start:end] = torch.tensor(text.truncated_logprobs, device="cpu")
        mask[row, start:end] = True
    return Rollouts(
        tokens=tokens.to(device),
        prompt_lengths=torch.tensor([len(text.prompt) for text in texts], device=device),
        mask=mask.to(device),
        logprobs=logprobs.to(device),
        truncated_logprobs=truncated_logprobs.to(device),
        group=torch.tensor([text.group for text in texts], device=device),
        finish=tuple(text.finish or "length" for text in texts),
    )
