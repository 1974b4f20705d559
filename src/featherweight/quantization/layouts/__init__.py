"""What bytes a format holds, without torch: read by `formats/` (PyTorch) and by the native engine's
loader alike.

One file a format. The class `XLayout` here describes the bytes of the format `X` in `formats/`, has
its fields, and is its base class; `BY_FORMAT` finds it by the format's name.
"""

from .base import Decoding, Layout
from .int import IntLayout
from .ternary import TernaryLayout
from .trellis import TrellisLayout

__all__ = ["IntLayout", "TernaryLayout", "TrellisLayout"]
PUBLIC_BASE = (Decoding, Layout)
BY_FORMAT: dict[str, type[Layout]] = {
    layout.__name__.removesuffix("Layout"): layout
    for layout in (IntLayout, TernaryLayout, TrellisLayout)
}
