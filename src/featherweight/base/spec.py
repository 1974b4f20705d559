"""Converts objects to text and back: `Trellis(bits=2)` <-> `"Trellis(bits=2)"`.

The text of an object is its constructor call with only the fields that differ from their defaults.
Recipes, checkpoints and users of the shell supply such texts, so they are untrusted and never
evaluated: the parser walks Python's syntax tree and accepts literals, tuples, lists, dicts, and
calls of the names in `namespace`. Everything else (attributes, operators, comprehensions) raises
UsageError. A name alone is a call without arguments: `YAQA` is `YAQA()`.

    text(parse("Trellis(bits=2, L=12)", {"Trellis": Trellis}))  ->  "Trellis(bits=2)"
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from .errors import FeatherweightError, UsageError

# Metadata of a dataclass field that the text contains even when it has its default: `Int(bits=4)`.
ALWAYS_SHOWN: Mapping[str, bool] = MappingProxyType({"always_shown": True})
Namespace = Mapping[str, Callable[..., Any]]  # the classes that a text may name
MAX_LENGTH = 10_000
MAX_DEPTH = 20


def parse(text: str, namespace: Namespace) -> Any:
    """The object that `text` describes. `namespace`: the allowed classes by name.

    Raises UsageError for any other text; for an unknown name or field it names the most similar
    known one.
    """
    if len(text) > MAX_LENGTH:
        raise UsageError(
            f"a description of {len(text)} characters is too long; the limit is {MAX_LENGTH}"
        )
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"cannot read {text[:80]!r}: write it like Name(field=value)") from error
    return _build(tree.body, namespace, 0)


def text(obj: Any, name: str | None = None) -> str:
    """The shortest text that `parse` turns back into an equal object.

    name: replaces the name of the class. Raises UsageError for an object that has no such text.
    """
    if dataclasses.is_dataclass(obj) and not isinstance(obj, type):
        parameters = inspect.signature(type(obj)).parameters.keys()
        if parameters != {f.name for f in dataclasses.fields(obj) if f.init}:
            # The arguments of the constructor are not the fields, so the class must define a repr.
            return repr(obj)
        arguments = (
            f"{f.name}={text(getattr(obj, f.name))}"
            for f in dataclasses.fields(obj)
            if _is_written(obj, f)
        )
        return f"{name or type(obj).__name__}({', '.join(arguments)})"
    if isinstance(obj, float) and not math.isfinite(obj):
        raise UsageError(f"{obj} cannot be written as text")
    if obj is None or type(obj) in (bool, int, float, str):
        return repr(obj)
    if type(obj) is tuple:
        return f"({', '.join(map(text, obj))}{',' if len(obj) == 1 else ''})"
    if type(obj) is list:
        return f"[{', '.join(map(text, obj))}]"
    if type(obj) is dict:
        return f"{{{', '.join(f'{text(key)}: {text(value)}' for key, value in obj.items())}}}"
    raise UsageError(f"{obj!r} cannot be written as text: it is neither a literal nor a dataclass")


def nearest(word: str, names: Iterable[str]) -> str:
    """The hint of an error for an unknown `word`: the most similar of `names`, or all of them."""
    names = sorted(names)
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    if close:
        return f"did you mean {close[0]!r}?"
    return "known: " + ", ".join(names) if names else "nothing is known here"


def _is_written(obj: Any, field: dataclasses.Field[Any]) -> bool:
    """Whether the text of `obj` contains `field`: when its value is not the default, or when its
    metadata are ALWAYS_SHOWN.
    """
    if not field.init:
        return False
    if field.metadata == ALWAYS_SHOWN:
        return True
    if field.default is not dataclasses.MISSING:
        default = field.default
    elif field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        return True
    value = getattr(obj, field.name)
    # True, 1 and 1.0 are equal, but their texts differ.
    return type(value) is not type(default) or value != default


def _build(node: ast.expr, namespace: Namespace, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise UsageError(f"a description nested deeper than {MAX_DEPTH} levels is refused")
    if isinstance(node, ast.Constant) and (
        node.value is None or type(node.value) in (bool, int, float, str)
    ):
        return node.value
    if (
        isinstance(node, ast.UnaryOp)
        and isinstance(node.op, ast.USub)
        and isinstance(node.operand, ast.Constant)
    ):
        if type(node.operand.value) in (int, float):
            return -node.operand.value  # type: ignore[operator]
    if isinstance(node, ast.Tuple):
        return tuple(_build(item, namespace, depth + 1) for item in node.elts)
    if isinstance(node, ast.List):
        return [_build(item, namespace, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        return dict(
            _item(key, value, namespace, depth)
            for key, value in zip(node.keys, node.values, strict=True)
        )
    if isinstance(node, ast.Name):
        return _call(node.id, [], {}, namespace)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if any(keyword.arg is None for keyword in node.keywords):
            raise UsageError(f"{ast.unparse(node)[:80]!r}: ** is not understood here")
        arguments = [_build(item, namespace, depth + 1) for item in node.args]
        keywords = {
            k.arg: _build(k.value, namespace, depth + 1) for k in node.keywords if k.arg is not None
        }
        return _call(node.func.id, arguments, keywords, namespace)
    raise UsageError(
        f"{ast.unparse(node)[:80]!r} is not a literal or a call like Name(field=value)"
    )


def _item(
    key: ast.expr | None, value: ast.expr, namespace: Namespace, depth: int
) -> tuple[Any, Any]:
    literal = None if key is None else _build(key, namespace, depth + 1)
    if key is None or not (literal is None or isinstance(literal, (bool, int, float, str))):
        raise UsageError(f"the key of {ast.unparse(value)[:80]!r} is not a literal")
    return literal, _build(value, namespace, depth + 1)


def _call(name: str, arguments: list[Any], keywords: dict[str, Any], namespace: Namespace) -> Any:
    if name not in namespace:
        raise UsageError(f"unknown name {name!r}; {nearest(name, namespace)}")
    signature = inspect.signature(namespace[name])
    for keyword in keywords:
        if keyword not in signature.parameters:
            raise UsageError(
                f"{name} has no field {keyword!r}; {nearest(keyword, signature.parameters)}"
            )
    try:
        return namespace[name](*arguments, **keywords)
    except FeatherweightError:
        raise
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"cannot make {name}: {error}") from error
