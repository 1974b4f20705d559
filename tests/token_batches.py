"""Batches of token ids with padding and prompts, a student and a teacher, for tests of losses."""

from __future__ import annotations

from typing import Any

import tiny
import torch
from torch import Tensor, nn

LENGTH = 9


def batch(count: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """Left and right padding, and a prompt that is not predicted."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 300, (count, LENGTH), generator=generator)
    attention = torch.ones_like(ids)
    attention[0, :3] = 0
    attention[-1, -2:] = 0
    loss_mask = torch.ones_like(ids)
    loss_mask[:, :2] = 0
    loss_mask[0, 5] = 0
    return {"input_ids": ids, "attention_mask": attention, "loss_mask": loss_mask}


def counted(inputs: dict[str, Tensor]) -> list[tuple[int, int]]:
    """(sequence, position) of every prediction that counts, one by one."""
    pairs = []
    for b in range(inputs["input_ids"].shape[0]):
        for t in range(LENGTH - 1):
            is_text = inputs["attention_mask"][b, t] and inputs["attention_mask"][b, t + 1]
            if is_text and inputs["loss_mask"][b, t + 1]:
                pairs.append((b, t))
    return pairs


def gradients(model: nn.Module, total: Tensor) -> list[Tensor]:
    model.zero_grad()
    total.backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def student() -> Any:
    return tiny.llama(0)[0]


def teacher() -> Any:
    return tiny.llama(1)[0]
