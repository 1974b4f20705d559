"""Texts that a model continues side by side, one row of a batch each: what sampling needs of a
model, whoever computes it.

`ModelRows` is a transformers model in torch. Keys and values lie in tensors that are made once for
the longest text (`StaticLayer`), so a step writes one position and copies nothing. Each prompt is
computed once, and its keys and values are written to all rows that continue it. Shorter prompts
have padding on the left, whose keys are hidden by a mask. When texts end, the last rows
take their places, and the batch shrinks: later steps compute nothing for texts that have ended.

A step passes the positions that exist so far to the attention, not the capacity. So there is no
CUDA graph, which would need fixed shapes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from ..base.errors import Unsupported
from .caching import cache_argument, is_recurrent, takes_positions

Ids = Sequence[int]
PREFILL_TOKENS = 1024  # of prompts in one forward pass, with their padding


class TextRows(ABC):
    """Texts that advance together. `context`: tokens of the longest text, None for any number."""

    vocab_size: int
    context: int | None
    device: torch.device

    @abstractmethod
    def start(
        self, prompts: Sequence[Ids], repeats: Sequence[int], max_tokens: int
    ) -> Float[Tensor, "prompts vocab"]:
        """Forget all rows, and make `repeats[i]` rows of prompt i, in this order.

        max_tokens: how many more tokens a row gets. Returns the logits after each prompt.
        """

    @abstractmethod
    def step(self, tokens: Int64[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        """Append one token to every row, and return the logits after it."""

    @abstractmethod
    def keep(self, order: Sequence[int]) -> None:
        """Let row i be what row `order[i]` was, and forget the rows that are not in `order`. A row
        never moves to a place behind its own.
        """

    @abstractmethod
    def close(self) -> None:
        """Release the memory of all rows."""


class StaticLayer(DynamicLayer):
    """Keys and values of one layer in tensors (rows, heads, capacity, width); the first `length`
    positions are in use.
    """

    def __init__(self, keys: Tensor, values: Tensor, rows: int, capacity: int, length: int) -> None:
        super().__init__()
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
        self._buffers = [
            torch.zeros((rows, t.shape[1], capacity, t.shape[3]), dtype=t.dtype, device=keys.device)
            for t in (keys, values)
        ]
        self.rows, self.length = rows, length
        self._show()

    def _show(self) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[: self.rows, :, : self.length] for buffer in self._buffers)
        self.keys, self.values = keys, values
        return keys, values

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        end = self.length + key_states.shape[2]
        for buffer, states in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[: self.rows, :, self.length : end] = states
        self.length = end
        return self._show()

    def fill(self, row: int, repeats: Tensor, keys: Tensor, values: Tensor) -> None:
        """Write the last positions of the rows from `row` on, `repeats` of each text in turn; keys
        (texts, heads, count, width).
        """
        for buffer, states in zip(self._buffers, (keys, values), strict=True):
            rows = states.repeat_interleave(repeats, 0) if int(repeats.max()) > 1 else states
            first = self.length - states.shape[2]
            buffer[row : row + len(rows), :, first : self.length] = rows

    def move(self, targets: Tensor, sources: Tensor, rows: int) -> None:
        """Copy rows `sources` to `targets`, and forget all but the first `rows`."""
        for buffer in self._buffers:
            buffer[targets, :, : self.length] = buffer[sources, :, : self.length]
        self.rows = rows
        self._show()


class ModelRows(TextRows):
    """Rows of a causal language model of transformers.

    Raises Unsupported for recurrent models and for those that take no positions, because their
    texts cannot have padding.
    """

    def __init__(self, model: nn.Module) -> None:
        name = type(model).__name__
        if is_recurrent(model):
            raise Unsupported(
                f"{name} has recurrent layers, which cannot be sampled in a batch; sample through "
                "an engine (featherweight.inference.engine_rollouts)"
            )
        if not takes_positions(model):
            raise Unsupported(f"{name} takes no position_ids, so it cannot be sampled in a batch")
        self._model: Any = model
        config = self._model.config.get_text_config(decoder=True)
        self.vocab_size = int(config.vocab_size)
        self.context = getattr(config, "max_position_embeddings", None)
        self._cache_name = cache_argument(model)
        self.device = next(model.parameters()).device
        self._layers: list[StaticLayer] = []
        self._lengths = torch.zeros(0, dtype=torch.int64, device=self.device)
        self._mask: Bool[Tensor, "rows capacity"] | None = None

    def start(
        self, prompts: Sequence[Ids], repeats: Sequence[int], max_tokens: int
    ) -> Float[Tensor, "prompts vocab"]:
        self.close()
        longest, rows = max(map(len, prompts)), sum(repeats)
        # The last token of an answer is not read.
        capacity = longest + max_tokens - 1
        counts = torch.tensor(list(repeats), device=self.device)
        logits, first_row, first_prompt = [], 0, 0
        for chunk in _chunks(prompts):
            output = self._read_prompts(chunk)
            cache = output[self._cache_name]
            if not self._layers:
                self._layers = [
                    StaticLayer(layer.keys, layer.values, rows, capacity, longest)
                    for layer in cache.layers
                ]
            chunk_counts = counts[first_prompt : first_prompt + len(chunk)]
            for target, layer in zip(self._layers, cache.layers, strict=True):
                target.fill(first_row, chunk_counts, layer.keys, layer.values)
            logits.append(output.logits[:, -1])
            first_prompt += len(chunk)
            first_row += int(chunk_counts.sum())
        lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
        self._lengths = lengths.repeat_interleave(counts)
        if min(map(len, prompts)) < longest:
            positions = torch.arange(capacity, device=self.device)
            self._mask = positions >= (longest - self._lengths)[:, None]
        return torch.cat(logits)

    @torch.no_grad()
    def _read_prompts(self, prompts: Sequence[Ids]) -> Any:
        """The output of one pass over `prompts`, with padding on the left."""
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64, device="cpu")
        for row, prompt in zip(ids, prompts, strict=True):
            row[longest - len(prompt) :] = torch.tensor(list(prompt), device="cpu")
        arguments: dict[str, Any] = {}
        if min(map(len, prompts)) < longest:
            lengths = torch.tensor([len(prompt) for prompt in prompts], device=self.device)
            positions = torch.arange(longest, device=self.device) - (longest - lengths)[:, None]
            arguments["position_ids"] = positions.clamp(min=0)
            arguments["attention_mask"] = (positions >= 0).long()
        # Without the model's configuration, sliding windows keep all tokens and are part of the
        # mask, so that rows of several lengths have the same positions.
        return self._model(
            input_ids=ids.to(self.device),
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_name: DynamicCache()},
            **arguments,
        )

    @torch.no_grad()
    def step(self, tokens: Int64[Tensor, " rows"]) -> Float[Tensor, "rows vocab"]:
        arguments: dict[str, Any] = {}
        if self._mask is not None:
            length = self._layers[0].length + 1
            arguments["attention_mask"] = self._mask[:, :length].long()
        output = self._model(
            input_ids=tokens[:, None],
            position_ids=self._lengths[:, None],
            use_cache=True,
            **{self._cache_name: Cache(layers=list(self._layers))},
            **arguments,
        )
        self._lengths += 1
        logits: Tensor = output.logits[:, -1]
        return logits

    def keep(self, order: Sequence[int]) -> None:
        moves = [(target, source) for target, source in enumerate(order) if target != source]
        targets, sources = (
            torch.tensor([move[i] for move in moves], dtype=torch.int64, device=self.device)
            for i in range(2)
        )
        for layer in self._layers:
            layer.move(targets, sources, len(order))
        indices = torch.tensor(list(order), dtype=torch.int64, device=self.device)
        self._lengths = self._lengths[indices]
        self._mask = None if self._mask is None else self._mask[indices]

    def close(self) -> None:
        self._layers, self._mask = [], None


def _chunks(prompts: Sequence[Ids]) -> Iterator[list[Ids]]:
    """Prompts one after another, in parts that fit into one forward pass."""
    chunk: list[Ids] = []
    for prompt in prompts:
        if chunk and (len(chunk) + 1) * max(len(prompt), *map(len, chunk)) > PREFILL_TOKENS:
            yield chunk
            chunk = []
        chunk.append(prompt)
    yield chunk
