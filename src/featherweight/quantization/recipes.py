"""Recipes: everything that decides a result, as data that a person can read, edit and run again.

A preset is a YAML file; flags, `--config` files and `--set` change its keys. `resolve` merges them
into one complete dict, which is stored as run.yaml and compared on resume. `Recipe.of` turns that
into the frozen objects that Python users pass themselves. Unknown keys and words are errors that
name the nearest known one.

In a plan, `tables` stands for the embedding and the head, whatever the model calls them.
`head_bits` is short for a format of the tables: from 6 bits on with a scale for each row, below
with one for each 64 columns (docs/log.md), and in groups of 32 where the preset is portable.
"""

from __future__ import annotations

import dataclasses
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from ..base import spec
from ..base.errors import UsageError
from . import curvature, formats, rounding, transforms
from .curvature.base import Curvature
from .formats.base import Format
from .plans import Plan
from .rounding.base import Rounding
from .transforms.hadamard import Hadamard

PRESETS = ("fast", "balanced", "portable")
DEFAULT_BITS = {"fast": 3, "balanced": 2, "portable": 4}
NAMESPACE: dict[str, type] = {
    name: getattr(room, name)
    for room in (formats, curvature, rounding, transforms)
    for name in room.__all__
}
OBJECT_KEYS = ("rounding", "curvature", "transform")
NESTED_KEYS: dict[str, dict[str, Any]] = {
    "calibration": {"mix": "shipped", "count": 256, "length": 256, "seed": 0, "files": []},
    "gate": {"count": 16},
    "evaluation": {"text": "wikitext2_test", "windows": 16, "length": 1024, "blocks_seconds": 60},
}
KEYS = ("model", "preset", "bits", "head_bits", "seed", "plan", *OBJECT_KEYS, *NESTED_KEYS)


@dataclass(frozen=True)
class Recipe:
    """The objects behind a resolved recipe; `settings` is the recipe itself."""

    settings: Mapping[str, Any]
    plan: Plan
    rounding: Rounding
    curvature: Curvature | None
    transform: Hadamard | None

    @staticmethod
    def of(settings: Mapping[str, Any], tables: list[str]) -> Recipe:
        """The objects of a resolved recipe; `tables` are the model's names for embedding and head.

        Raises UsageError for text that is no object of its kind, and for a rounding that needs
        curvature when the recipe collects none.
        """
        patterns: dict[str, Format | None] = {}
        defaults: set[str] = set()
        preset = preset_plan(settings["preset"], settings["bits"])
        for pattern, text in settings["plan"].items():
            format = _parse_object(f"plan.{pattern}", text, Format)
            for name in tables if pattern == "tables" else [pattern]:
                patterns[name] = format
                if preset.get(pattern, "") == text:
                    defaults.add(name)
        method = _parse_object("rounding", settings["rounding"], Rounding)
        collection = _parse_object("curvature", settings["curvature"], Curvature)
        transform = _parse_object("transform", settings["transform"], Hadamard)
        if method is None:
            raise UsageError("rounding: choose one of " + ", ".join(rounding.__all__))
        if collection is None and method.needs_curvature:
            raise UsageError(f"rounding {method!r} needs curvature: Gram(), FisherA() or FisherB()")
        plan = Plan(patterns, frozenset(defaults))
        return Recipe(settings, plan, method, collection, transform)


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A complete recipe from the keys that a user gave; those of the preset fill in the others.

    Raises UsageError for unknown keys and words, and for impossible values.
    """
    _check_keys(settings, KEYS, "the recipe")
    preset = settings.get("preset") or "balanced"
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; {spec.nearest(str(preset), PRESETS)}")
    bits = settings.get("bits")
    bits = DEFAULT_BITS[preset] if bits is None else _integer("bits", bits)
    seed = _integer("seed", settings.get("seed", 0))
    defaults: dict[str, Any] = _preset_settings(preset, bits)
    recipe: dict[str, Any] = {
        "model": str(settings.get("model", "")),
        "preset": preset,
        "bits": bits,
        "seed": seed,
        "plan": _merged_plan(settings, defaults["plan"], preset),
    }
    for key in OBJECT_KEYS:
        recipe[key] = _with_seed(_text(settings.get(key, defaults[key])), seed)
    for name in NESTED_KEYS:
        recipe[name] = _merged_nested(name, settings, defaults, seed)
    if recipe["calibration"] is None and recipe["curvature"] is not None:
        raise UsageError(
            "calibration: null leaves no text to collect curvature on; "
            "use rounding Nearest() without it"
        )
    return recipe


def _merged_plan(
    settings: Mapping[str, Any], defaults: Mapping[str, Any], preset: str
) -> dict[str, str | None]:
    """The user's patterns before the preset's, because the first match decides."""
    patterns = {str(key): _text(value) for key, value in (settings.get("plan") or {}).items()}
    if settings.get("head_bits") is not None:
        patterns = _with_tables(patterns, _integer("head_bits", settings["head_bits"]), preset)
    return patterns | {k: _text(v) for k, v in defaults.items() if k not in patterns}


def _merged_nested(
    name: str, settings: Mapping[str, Any], preset: Mapping[str, Any], seed: int
) -> dict[str, Any] | None:
    """The keys of a group: the user's, the preset's, the defaults; None when it is left out."""
    defaults, changes = NESTED_KEYS[name], settings.get(name, {})
    if changes is None or (name in preset and preset[name] is None and not changes):
        return None
    if not isinstance(changes, Mapping):
        raise UsageError(f"{name} must be a group of keys ({', '.join(defaults)}), not {changes!r}")
    _check_keys(changes, defaults, name)
    values = {**defaults, **(preset.get(name) or {}), **changes}
    if "seed" in values and "seed" not in changes:
        values["seed"] = seed
    return {
        key: _integer(f"{name}.{key}", value) if isinstance(defaults[key], int) else value
        for key, value in values.items()
    }


def _with_tables(patterns: dict[str, str | None], bits: int, preset: str) -> dict[str, str | None]:
    """The user's patterns after one for tables of `bits` bits."""
    portable = preset == "portable"
    group = 32 if portable else 64 if bits < 6 else None
    text = repr(formats.Int(bits, group, portable=portable))
    if patterns.get("tables", text) != text:
        raise UsageError(
            f"head_bits={bits} and plan.tables={patterns['tables']} decide the same tables; "
            "give one of them"
        )
    return {"tables": text, **patterns}


def preset_plan(preset: str, bits: int) -> dict[str, str | None]:
    """The patterns of a preset, as text."""
    plan = _preset_settings(preset, bits)["plan"]
    return {pattern: _text(value) for pattern, value in plan.items()}


def preset_text(preset: str) -> str:
    """The YAML of a preset, as a user may print and edit it."""
    path = importlib.resources.files(__package__).joinpath(f"presets/{preset}.yaml")
    return path.read_text(encoding="utf-8")


def _preset_settings(preset: str, bits: int) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(preset_text(preset).replace("{bits}", str(bits)))
    return settings


def _with_seed(text: str | None, seed: int) -> str | None:
    """The text of an object with the run's seed, where it has a seed that nobody set.

    So the one seed of a run reaches the signs of rotations, the sampled labels, and whatever else
    is random. Text that is no object is returned as it is, and refused later.
    """
    if text is None or not seed or "seed=" in text.replace(" ", ""):
        return text
    obj = spec.parse(text, NAMESPACE)
    if not dataclasses.is_dataclass(obj) or isinstance(obj, type):
        return text
    default = next(
        (field.default for field in dataclasses.fields(obj) if field.name == "seed"), None
    )
    if default is None:
        return text
    return spec.text(dataclasses.replace(obj, seed=seed))  # type: ignore[call-arg]


def _text(value: Any) -> str | None:
    return None if value is None or value == "None" else str(value)


def _parse_object(key: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    obj = spec.parse(text, NAMESPACE)
    if not isinstance(obj, kind):
        raise UsageError(f"{key}: {text} is a {type(obj).__name__}, not a {kind.__name__.lower()}")
    return obj


def _integer(key: str, value: Any) -> int:
    try:
        number = int(value)
        if number != float(value) or number < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{key}: {value!r} is not a whole number") from None
    return number


def _check_keys(settings: Mapping[str, Any], keys: Any, group: str) -> None:
    """Raise UsageError for a key that is not one of `keys`."""
    for key in settings:
        if key not in keys:
            raise UsageError(f"unknown key {key!r} in {group}; {spec.nearest(str(key), keys)}")
