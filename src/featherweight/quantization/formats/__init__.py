"""Which numbers a weight may be."""

from .base import Format, Params, QWeight
from .int import Int
from .ternary import Ternary
from .trellis import Trellis

__all__ = ["Int", "Ternary", "Trellis"]
PUBLIC_BASE = (Format, Params, QWeight)
