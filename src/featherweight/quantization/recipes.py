"""Recipes: everything that decides a result, as plain data that a person can read, edit and run
again.

A preset is a printable YAML file; flags, `--config` files and `--set` change its keys. `resolve`
merges them into one complete dict (stored as run.yaml, refused on resume when it differs),
`Recipe.of` turns that into the frozen objects that Python users pass themselves. Unknown keys and
words are errors that name the nearest known one.

In a plan, `tables` stands for the embedding and the head, whatever the model calls them;
`head_bits` is short for a format of them: a scale a row from 6 bits on, one for 64 columns below
(docs/log.md), groups of 32 where the preset is portable.
"""

from __future__ import annotations

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
SECTIONS: dict[str, dict[str, Any]] = {
    "calibration": {"mix": "shipped", "count": 256, "length": 256, "seed": 0, "files": []},
    "gate": {"count": 16},
    "evaluation": {"text": "wikitext2_test", "windows": 16, "length": 1024, "blocks_seconds": 60},
}
KEYS = (
    "model",
    "preset",
    "bits",
    "head_bits",
    "seed",
    "plan",
    "rounding",
    "curvature",
    "transform",
    *SECTIONS,
)


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
        """Build the objects; `tables` are this model's names for embedding and head."""
        patterns: dict[str, Format | None] = {}
        defaults: set[str] = set()
        preset = preset_plan(settings["preset"], settings["bits"])
        for pattern, text in settings["plan"].items():
            format = _object(f"plan.{pattern}", text, Format)
            for name in tables if pattern == "tables" else [pattern]:
                patterns[name] = format
                if preset.get(pattern, "") == text:
                    defaults.add(name)
        method = _object("rounding", settings["rounding"], Rounding)
        source = _object("curvature", settings["curvature"], Curvature)
        if method is None:
            raise UsageError("rounding: choose one of " + ", ".join(rounding.__all__))
        if source is None and method.needs_curvature:
            raise UsageError(f"rounding {method!r} needs curvature: Gram(), FisherA() or FisherB()")
        plan = Plan(patterns, frozenset(defaults))
        return Recipe(
            settings, plan, method, source, _object("transform", settings["transform"], Hadamard)
        )


def resolve(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A complete recipe from what a user gave.

    Raises UsageError for unknown keys, words and impossible values.
    """
    _known(settings, KEYS, "the recipe")
    preset = settings.get("preset") or "balanced"
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}; {spec.nearest(str(preset), PRESETS)}")
    bits = settings.get("bits")
    bits = DEFAULT_BITS[preset] if bits is None else _whole("bits", bits)
    seed = _whole("seed", settings.get("seed", 0))
    base: dict[str, Any] = yaml.safe_load(preset_text(preset).replace("{bits}", str(bits)))
    recipe: dict[str, Any] = {
        "model": str(settings.get("model", "")),
        "preset": preset,
        "bits": bits,
        "seed": seed,
    }
    # The user's patterns stand first: the first match decides.
    mine = {str(k): _text(v) for k, v in (settings.get("plan") or {}).items()}
    if settings.get("head_bits") is not None:
        mine = _with_tables(mine, _whole("head_bits", settings["head_bits"]), preset)
    recipe["plan"] = {**mine, **{k: _text(v) for k, v in base["plan"].items() if k not in mine}}
    for key in ("rounding", "curvature", "transform"):
        recipe[key] = _text(settings[key] if key in settings else _seeded(base[key], seed))
    for section, defaults in SECTIONS.items():
        given = settings.get(section, {})
        if given is None or (section in base and base[section] is None and not given):
            recipe[section] = None
            continue
        if not isinstance(given, Mapping):
            raise UsageError(
                f"{section} must be a group of keys ({', '.join(defaults)}), not {given!r}"
            )
        _known(given, defaults, section)
        merged = {**defaults, **(base.get(section) or {}), **given}
        if "seed" in merged and "seed" not in given:
            merged["seed"] = seed
        recipe[section] = {
            key: _whole(f"{section}.{key}", value) if isinstance(defaults[key], int) else value
            for key, value in merged.items()
        }
    if recipe["calibration"] is None and recipe["curvature"] is not None:
        raise UsageError(
            "calibration: null leaves no text to collect curvature on; use rounding Nearest() without it"
        )
    return recipe


def _with_tables(mine: dict[str, str | None], bits: int, preset: str) -> dict[str, str | None]:
    """The user's patterns with one for tables of `bits` bits before them."""
    portable = preset == "portable"
    group = 32 if portable else 64 if bits < 6 else None
    text = repr(formats.Int(bits, group, portable=portable))
    if mine.get("tables", text) != text:
        raise UsageError(
            f"head_bits={bits} and plan.tables={mine['tables']} decide the same tables; give one of them"
        )
    return {"tables": text, **mine}


def preset_plan(preset: str, bits: int) -> dict[str, str | None]:
    """The patterns of a preset, as text."""
    base = yaml.safe_load(preset_text(preset).replace("{bits}", str(bits)))
    return {pattern: _text(value) for pattern, value in base["plan"].items()}


def preset_text(preset: str) -> str:
    """The YAML of a preset, as a user may print and edit it."""
    return (
        importlib.resources.files(__package__)
        .joinpath(f"presets/{preset}.yaml")
        .read_text(encoding="utf-8")
    )


def _seeded(text: str | None, seed: int) -> str | None:
    """The one seed of a run reaches the signs and the sampled labels."""
    if text in ("Hadamard()", "FisherA()") and seed:
        return f"{text[:-1]}seed={seed})"
    return text


def _text(value: Any) -> str | None:
    return None if value is None or value == "None" else str(value)


def _object(key: str, text: str | None, kind: type) -> Any:
    if text is None:
        return None
    found = spec.parse(text, NAMESPACE)
    if not isinstance(found, kind):
        raise UsageError(
            f"{key}: {text} is a {type(found).__name__}, not a {kind.__name__.lower()}"
        )
    return found


def _whole(key: str, value: Any) -> int:
    try:
        number = int(value)
        if number != float(value) or number < 0:
            raise ValueError
    except (TypeError, ValueError):
        raise UsageError(f"{key}: {value!r} is not a whole number") from None
    return number


def _known(given: Mapping[str, Any], known: Any, where: str) -> None:
    for key in given:
        if key not in known:
            raise UsageError(f"unknown key {key!r} in {where}; {spec.nearest(str(key), known)}")
