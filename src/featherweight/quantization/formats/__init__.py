"""Which numbers a weight may be."""

from .base import Format, Params, QWeight
from .int import Int
from .trellis import Trellis

__all__ = ["Int", "Trellis"]
PUBLIC_BASE = (Format, Params, QWeight)
