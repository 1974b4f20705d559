"""Reads results.json, which may come from another program or an older version of this one.

Nothing is assumed about its content: `tidy` puts an empty mapping or list wherever the page expects
one, and the type of every figure is checked before it is used. A missing figure is left out of the
sentence, the picture or the table.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...base.errors import BadInput
from ...base.files import write_atomic
from ...reporting import numbers

RESULTS = "results.json"
_INTERVAL: dict[str, Any] = {}
_QUALITY = {
    "text": {"first_ids": []},
    "kl": _INTERVAL,
    "top1": _INTERVAL,
    "kl_windows": [],
    "perplexity_ratio": _INTERVAL,
    "original": {"perplexity": _INTERVAL},
    "light": {"perplexity": _INTERVAL},
}
_METRICS = dict.fromkeys(("acc", "acc_norm", "acc_bytes", "perplexity"), _INTERVAL)
# The mappings and lists that results.json should hold. A list with one entry says that each item of
# the list has the shape of this entry.
SHAPE: dict[str, Any] = {
    "model": {},
    "size": {"bytes": {}},
    "quality": _QUALITY | {"others": [_QUALITY]},
    "layers": [{"bits": {}, "fallbacks": []}],
    "calibration": {"sources": [{}]},
    "seconds": {},
    "machine": {},
    "versions": {},
    "warnings": [],
    "samples": [{}],
    "free_running": {"rates": {}, "samples": [{}]},
    "tasks": [{"metrics": _METRICS, "bos": [], "first_ids": []}],
}


def load_results(results: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    """The content of results.json. `results` is the content itself, the file, or its folder.

    Raises BadInput, which names the file, when it is missing or is no JSON object.
    """
    if isinstance(results, Mapping):
        return results
    path = Path(results)
    path = path / RESULTS if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; `fw quantize` and `fw evaluate` write it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} should hold an object, not a {type(content).__name__}")
    return content


def write_results(results: Mapping[str, Any], folder: Path) -> None:
    """Write results.json into `folder`."""
    write_atomic(folder / RESULTS, json.dumps(results, indent=1) + "\n")


def tidy(value: Any, shape: Any = SHAPE) -> Any:
    """`value` with a mapping or a list wherever `shape` has one; everything else is unchanged.

    A missing value, or a value of another kind, is replaced by an empty mapping or list. From a
    list of mappings, items of other kinds are removed.
    """
    if isinstance(shape, dict):
        entries = dict(value) if isinstance(value, Mapping) else {}
        return entries | {key: tidy(entries.get(key), inner) for key, inner in shape.items()}
    items = value if isinstance(value, list) else []
    if not shape:
        return items
    return [tidy(item, shape[0]) for item in items if isinstance(item, Mapping)]


def mapping_at(results: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, or an empty one when there is none."""
    value: Any = results
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def mappings_at(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The mappings in the list at `key`; items of other kinds are left out."""
    items = results.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def number_at(mapping: Mapping[str, Any], key: str) -> float | None:
    """The number at `key`, or None when there is none."""
    value: Any = mapping.get(key)
    return value if numbers.is_number(value) else None


def confidence_level(results: Mapping[str, Any]) -> str:
    """The level of the intervals, "95 %", or the word "bootstrap" when the file has no level."""
    level = number_at(mapping_at(results, "quality"), "level")
    return "bootstrap" if level is None else numbers.percent(level, 0)


def yes_no(value: Any) -> str:
    """ "yes" or "no"; empty when the results do not say."""
    return "" if value is None else "yes" if value else "no"
