"""Transforms of the weights that do not change the function of the model."""

from .hadamard import Hadamard

__all__ = ["Hadamard"]
