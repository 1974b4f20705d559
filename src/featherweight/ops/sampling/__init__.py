"""Chooses the next token from the logits of one position. It uses numpy only, because the native
engine runs without torch; `batched` does the same for many rows in torch.
"""

from __future__ import annotations

from .reference import Choice, Sampler, score_token, top_indices

__all__ = ["Choice", "Sampler", "score_token", "top_indices"]
