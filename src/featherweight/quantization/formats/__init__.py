"""Number formats: the values that a quantized weight can have. There is one file for each format;
`layouts/` defines the bytes that store it.
"""

from .base import Format, Params, QWeight
from .int import Int
from .ternary import Ternary
from .trellis import Trellis

__all__ = ["Int", "Ternary", "Trellis"]
PUBLIC_BASE = (Format, Params, QWeight)
