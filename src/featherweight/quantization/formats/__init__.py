"""Which numbers a weight may be. One file a format; `layouts/` says which bytes hold them."""

from .base import Format, Params, QWeight
from .int import Int
from .ternary import Ternary
from .trellis import Trellis

__all__ = ["Int", "Ternary", "Trellis"]
PUBLIC_BASE = (Format, Params, QWeight)
