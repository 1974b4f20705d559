"""Models in and out: where they come from, packed folders, exports, the transformers plug-in.

Importing the room imports none of it: `load` and `save` are imported when they are first used, and
`hf` registers with transformers when it is itself imported, and only then.
"""

from __future__ import annotations

from ..base.lazy import lazy_names

_TARGETS = {"load": "loading", "save": "packed.folder"}
__all__ = ["load", "save"]
__getattr__, __dir__ = lazy_names(__name__, _TARGETS)
