"""A causal model with blocks, small enough to enumerate its labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, hidden_states: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        mixed = hidden_states.cumsum(1) / torch.arange(1, hidden_states.shape[1] + 1).view(1, -1, 1)
        return hidden_states + scale * self.down(torch.tanh(self.up(mixed)) * self.gate(mixed))


@dataclass
class Output:
    logits: torch.Tensor


class Toy(nn.Module):
    """A causal model with blocks, small enough to enumerate its labels."""

    def __init__(self, vocab: int = 3, width: int = 4, depth: int = 2, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = nn.Embedding(vocab, width)
        self.layers = nn.ModuleList(Block(width) for _ in range(depth))
        self.lm_head = nn.Linear(width, vocab, bias=False)

    def forward(
        self, input_ids: torch.Tensor, use_cache: bool = False, logits_to_keep: int = 0
    ) -> Output:
        hidden = self.embed(input_ids)
        for layer in self.layers:
            hidden = layer(hidden, scale=0.7)
        return Output(self.lm_head(hidden[:, -logits_to_keep:]))
