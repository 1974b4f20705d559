"""Rewrites after which the model computes the same function."""

from .hadamard import Hadamard

__all__ = ["Hadamard"]
