"""PyTorch modules that hold compressed weights and compute with them."""

from .base import CompressedModule
from .embedding import CompressedEmbedding, TiedHead
from .linear import CompressedLinear
from .model import compressed_layers, description_of, keep_decoded, share_inputs, tie_head

__all__ = [
    "CompressedEmbedding",
    "CompressedLinear",
    "CompressedModule",
    "TiedHead",
    "compressed_layers",
    "description_of",
    "keep_decoded",
    "share_inputs",
    "tie_head",
]
