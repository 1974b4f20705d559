"""What writes the answers: `generate`, `update_weights`, `close`."""

from __future__ import annotations

from .base import Sampler
from .engine import EngineSampler
from .local import LocalSampler
from .transformers_generate import TransformersSampler

__all__ = ["EngineSampler", "LocalSampler", "Sampler", "TransformersSampler"]
