"""Recipes: all settings that determine the result of a run, as data that a user can read, edit and
run again.

A preset is a YAML file; flags, `--config` files and `--set` change its keys. `resolve` merges them
into one complete dict, which is stored as run.yaml and compared when a run is resumed. `Recipe.of`
turns the dict into the frozen objects that Python users create themselves. The error for an unknown
key or word names the most similar known one.

In a plan, the pattern `tables` means the embedding and the head under whatever names the model has
for them. `head_bits` is an abbreviation for a format of the tables: Int with a scale for each row
from 6 bits on, and for each 64 columns below (docs/log.md); with the preset portable, for each 32
columns.
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
    "evaluation": {
        "text": "wikitext2_test",
        "windows": 16,
        "length": 1024,
        "bos": "auto",
        "blocks_seconds": 60,
        "prompts": 100,
        "answer_tokens": 256,
    },
}
KEYS = ("model", "preset", "bits", "head_bits", "seed", "plan", *OBJECT_KEYS, *NESTED_KEYS)


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe (`settings`) and the objects that it describes."""

    settings: Mapping[str, Any]
    plan: Plan
    rounding: Rounding
    curvature: Curvature | None
    transform: Hadamard | None

    @staticmethod
    def of(settings: Mapping[str, Any], tables: list[str]) -> Recipe:
        """The objects that a resolved recipe describes.

        settings: the return value of `resolve`. tables: the model's names of embedding and head.
        Raises UsageError for text that does not describe an object of the expected class, and for a
        rounding that needs curvature when the recipe collects none.
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
    """A complete recipe: the keys that a user gave, and those of the preset for the others.

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
    """The patterns of the user followed by those of the preset: the first match decides."""
    patterns = {str(key): _text(value) for key, value in (settings.get("plan") or {}).items()}
    if settings.get("head_bits") is not None:
        patterns = _with_tables(patterns, _integer("head_bits", settings["head_bits"]), preset)
    return patterns | {k: _text(v) for k, v in defaults.items() if k not in patterns}


def _merged_nested(
    name: str, settings: Mapping[str, Any], preset: Mapping[str, Any], seed: int
) -> dict[str, Any] | None:
    """The values of a nested key: the user's, else the preset's, else the defaults.

    None when the user or the preset switches it off.
    """
    defaults, changes = NESTED_KEYS[name], settings.get(name, {})
    if changes is None or (name in preset and preset[name] is None and not changes):
        return None
    if not isinstance(changes, Mapping):
        raise UsageError(f"{name} must be a group of keys ({', '.join(defaults)}), not {changes!r}")
    _check_keys(changes, defaults, name)
    values = {**defaults, **(preset.get(name) or {}), **changes}
    if "seed" in values and "seed" not in changes:
        values["seed"] = seed
    if isinstance(values.get("bos"), bool):  # YAML reads the words yes and no as booleans
        values["bos"] = "yes" if values["bos"] else "no"
    return {
        key: _integer(f"{name}.{key}", value) if isinstance(defaults[key], int) else value
        for key, value in values.items()
    }


def _with_tables(patterns: dict[str, str | None], bits: int, preset: str) -> dict[str, str | None]:
    """A pattern for tables of `bits` bits, followed by the patterns of the user.

    Raises UsageError when the user has another pattern for the tables.
    """
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
    """The patterns of a preset with their formats as text."""
    plan = _preset_settings(preset, bits)["plan"]
    return {pattern: _text(value) for pattern, value in plan.items()}


def preset_text(preset: str) -> str:
    """The YAML text of a preset, which users can print and edit."""
    path = importlib.resources.files(__package__).joinpath(f"presets/{preset}.yaml")
    return path.read_text(encoding="utf-8")


def _preset_settings(preset: str, bits: int) -> dict[str, Any]:
    settings: dict[str, Any] = yaml.safe_load(preset_text(preset).replace("{bits}", str(bits)))
    return settings


def _with_seed(text: str | None, seed: int) -> str | None:
    """The text of an object with the seed of the run, if the object has a seed that the user did
    not set.

    So the seed of the run determines the signs of rotations, the sampled labels, and everything
    else that is random. Text that does not describe an object is returned unchanged; `Recipe.of`
    refuses it.
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
