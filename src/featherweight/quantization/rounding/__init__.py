"""Rounding methods, which choose a representable value for every weight."""

from .base import Rounding, RoundingResult
from .ldlq import LDLQ
from .nearest import Nearest
from .yaqa import YAQA

__all__ = ["LDLQ", "YAQA", "Nearest"]
PUBLIC_BASE = (Rounding, RoundingResult)
