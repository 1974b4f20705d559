"""Curvature: how much the model's loss grows with an error in a weight."""

from .base import Curvature, Factors, Sums
from .fisher_a import FisherA
from .fisher_b import FisherB
from .gram import Gram

__all__ = ["FisherA", "FisherB", "Gram"]
PUBLIC_BASE = (Curvature, Factors, Sums)
