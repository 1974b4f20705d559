"""The distribution that transformers' logits processors leave, to which sampling is compared."""

from __future__ import annotations

from typing import Any

import torch
from transformers.generation import logits_process

from featherweight.base.sampling import Sampling


def transformers_probabilities(values: Any, sampling: Sampling, prompt: list[int]) -> Any:
    """Probabilities after transformers' processors, in the order that `generate` puts them."""
    scores, ids = torch.from_numpy(values)[None], torch.tensor([prompt or [0]])
    chain: list[Any] = []
    if sampling.repetition_penalty != 1:
        chain.append(logits_process.RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    chain.append(logits_process.TemperatureLogitsWarper(float(sampling.temperature)))
    if sampling.top_k:
        chain.append(logits_process.TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chain.append(logits_process.TopPLogitsWarper(sampling.top_p))
    if sampling.min_p > 0:
        chain.append(logits_process.MinPLogitsWarper(sampling.min_p))
    for process in chain:
        scores = process(ids, scores)
    return scores.double().softmax(-1)[0].numpy()
