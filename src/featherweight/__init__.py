"""featherweight makes language models light - fewer bits, fewer weights, fewer reads - and proves what it cost.

This module is the roof: it offers the verbs and the classes by name and fetches each from its room when it is first
asked for. Importing it imports no torch, registers nothing and patches nothing.

    import featherweight as fw
    model, tokenizer = fw.load("SmolLM2-135M-Instruct")
    fw.quantize(model, fw.YAQA(), fw.Plan({"*": fw.Trellis(bits=2)}), factors, transform=fw.Hadamard())
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Name -> the room that offers it. A verb is never also the name of a module.
_ROOMS = {
    "quantization.formats": ("Int", "Trellis"),
    "quantization.curvature": ("Gram", "FisherB"),
    "quantization.rounding": ("Nearest", "LDLQ", "YAQA"),
    "quantization.transforms": ("Hadamard",),
    "quantization.plans": ("Plan",),
    "quantization.pipeline": ("quantize", "plan"),
    "evaluation": ("Perplexity", "KL", "evaluate"),
    "inference": ("generate", "chat"),
    "reporting": ("report",),
    "interchange": ("load", "save"),
    "base.errors": ("FeatherweightError", "UsageError", "BadInput", "PreflightRefused", "GateFailed"),
    "base.events": ("Event",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}
_MODULES = ("data", "interchange")

__all__ = ["__version__", *_MODULES, *_ROOM_OF]


def __getattr__(name: str) -> Any:
    if name in _ROOM_OF:
        value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
