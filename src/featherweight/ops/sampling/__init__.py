"""From the logits of one position to the next token, in numpy: no torch is imported, because the
native engine chooses its tokens here.
"""

from __future__ import annotations

from .reference import Choice, Sampler, score_token, top_indices

__all__ = ["Choice", "Sampler", "score_token", "top_indices"]
