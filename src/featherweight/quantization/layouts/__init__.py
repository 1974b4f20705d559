"""Layouts: the bytes that each format stores, defined without torch, because both `formats/`
(PyTorch) and the loader of the native engine use them.

There is one file for each format. The class `XLayout` defines the fields and the bytes of the
format `X` in `formats/`, and is its base class; `BY_FORMAT` maps the name `X` to it.
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
