"""Packages that offer names without importing the modules behind them until a name is used.

    __getattr__, __dir__ = lazy_names(__name__, {"Sampler": "sampling", "bench":
    "workflows.bench_folder:bench_folder"})

in a package's `__init__` makes `package.Sampler` import `package.sampling` at its first use and
keep the result. A target is "module" (the attribute has the name itself), "module:attribute", or
"module:" for the module. Paths are relative to the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, targets: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and `__dir__` of `package` for names that live in its submodules.

    `__getattr__` raises AttributeError for a name that is not in `targets`.
    """

    def get_attribute(name: str) -> Any:
        if name not in targets:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        path, colon, attribute = targets[name].partition(":")
        module = import_module(f"{package}.{path}")
        value = module if colon and not attribute else getattr(module, attribute or name)
        setattr(sys.modules[package], name, value)
        return value

    def list_names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *targets})

    return get_attribute, list_names
