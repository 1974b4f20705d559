"""Lazy imports: a package can offer names whose modules are imported only when a name is used.

    __getattr__, __dir__ = lazy_names(__name__, {"Sampler": "sampling", "bench":
    "workflows.bench_folder:bench_folder"})

With this line in the `__init__` of a package, the first use of `package.Sampler` imports
`package.sampling` and keeps the attribute. A target is "module" when the attribute has the same
name, "module:attribute" when it has another, and "module:" for the module itself. Modules are
relative to the package.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, targets: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of `package`.

    targets: name -> target, as described above. `__getattr__` raises AttributeError for other
    names.
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
