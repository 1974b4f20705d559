"""Reading results.json, which may come from elsewhere or be older than this code.

Nothing is assumed of its content: `tidy` puts empty mappings and lists where some are expected, and
every figure is looked at before it is used. What is missing is left out of the sentence, the
picture or the table, and never guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...base.errors import BadInput
from ...reporting import numbers

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
# Where results.json holds mappings, and where lists; a list with one entry gives the shape of each
# of its items.
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
}


def load_results(results: Mapping[str, Any] | Path | str) -> Mapping[str, Any]:
    """The content of results.json: of `results` itself, of a file, or of the file in a folder.

    Raises BadInput, naming the file, when it is missing or is no JSON object.
    """
    if isinstance(results, Mapping):
        return results
    path = Path(results)
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist; `fw quantize` and `fw evaluate` write it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, Mapping):
        raise BadInput(f"{path} should hold an object, not a {type(content).__name__}")
    return content


def tidy(value: Any, shape: Any = SHAPE) -> Any:
    """`value` with mappings and lists where `shape` has them, and everything else as it is.

    What should be a mapping or a list and is not becomes an empty one; items of another kind are
    left out of lists of mappings.
    """
    if isinstance(shape, dict):
        entries = dict(value) if isinstance(value, Mapping) else {}
        return entries | {key: tidy(entries.get(key), inner) for key, inner in shape.items()}
    items = value if isinstance(value, list) else []
    if not shape:
        return items
    return [tidy(item, shape[0]) for item in items if isinstance(item, Mapping)]


def mapping_at(results: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The mapping at `path`, or an empty one where there is none."""
    value: Any = results
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


def mappings_at(results: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The list of mappings at `key`; anything else in it is left out."""
    items = results.get(key)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def number_at(mapping: Mapping[str, Any], key: str) -> float | None:
    """The number at `key`, or None where there is none."""
    value: Any = mapping.get(key)
    return value if numbers.is_number(value) else None


def confidence_level(results: Mapping[str, Any]) -> str:
    """The level of the intervals, "95 %", or the word "bootstrap" where the file does not say."""
    level = number_at(mapping_at(results, "quality"), "level")
    return "bootstrap" if level is None else numbers.percent(level, 0)


def yes_no(value: Any) -> str:
    """ "yes" or "no"; empty when the results do not say."""
    return "" if value is None else "yes" if value else "no"
