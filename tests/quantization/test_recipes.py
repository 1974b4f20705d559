"""What users say becomes one complete recipe; `head_bits` is short for a format of the tables."""

from __future__ import annotations

from typing import Any

import pytest

from featherweight.base.errors import UsageError
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.recipes import Recipe, resolve

TABLES = ["model.embed_tokens"]


@pytest.mark.parametrize(
    ("bits", "preset", "format"),
    [
        (2, "fast", Int(bits=2, group=64)),
        (4, "balanced", Int(bits=4, group=64)),
        (6, "balanced", Int(bits=6)),
        (8, "fast", Int(bits=8)),
        (4, "portable", Int(bits=4, group=32, portable=True)),
        (8, "portable", Int(bits=8, group=32, portable=True)),
    ],
)
def test_head_bits_is_a_format_of_the_tables(bits: int, preset: str, format: Int) -> None:
    recipe = resolve({"preset": preset, "bits": 4, "head_bits": bits})
    assert Recipe.of(recipe, TABLES).plan.patterns["model.embed_tokens"] == format
    assert next(iter(recipe["plan"])) == "tables"
    assert "head_bits" not in recipe
    assert resolve(recipe) == recipe


def test_without_head_bits_the_preset_decides() -> None:
    for preset, format in (("fast", Int(bits=8)), ("balanced", Int(bits=8)), ("portable", None)):
        plan = Recipe.of(resolve({"preset": preset, "bits": 4}), TABLES).plan
        assert plan.patterns["model.embed_tokens"] == format


def test_tables_stand_before_what_is_said_of_all() -> None:
    recipe = resolve(
        {"preset": "fast", "bits": 2, "head_bits": 4, "plan": {"*": "Trellis(bits=3)"}}
    )
    assigned = Recipe.of(recipe, TABLES).plan.assign(
        {"model.embed_tokens": (300, 64), "layers.0.up": (64, 64)}
    )
    assert assigned == {"model.embed_tokens": Int(bits=4, group=64), "layers.0.up": Trellis(bits=3)}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"head_bits": 9}, "bits must be 2 to 8"),
        ({"head_bits": 1}, "bits must be 2 to 8"),
        ({"head_bits": "four"}, "head_bits: 'four' is not a whole number"),
        ({"head_bits": 4, "plan": {"tables": "Int(bits=5)"}}, "decide the same tables"),
    ],
)
def test_what_cannot_be_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(given)


def test_saying_it_twice_alike_is_no_quarrel() -> None:
    given = {"head_bits": 6, "plan": {"tables": "Int(bits=6)"}}
    assert resolve(given)["plan"]["tables"] == "Int(bits=6)"


def test_the_seed_of_a_run_reaches_every_object_that_has_one() -> None:
    recipe = resolve({"preset": "balanced", "seed": 3, "transform": "Hadamard(output='full')"})
    assert recipe["curvature"] == "FisherA(seed=3)" and recipe["calibration"]["seed"] == 3
    assert recipe["transform"] == "Hadamard(seed=3, output='full')"
    assert resolve(recipe) == recipe
    for text in ("FisherB(probes=8)", "FisherB(seed=0, probes=8)", "FisherB(seed=5, probes=8)"):
        seed = {"FisherB(probes=8)": "seed=3, "}.get(text, "")
        expected = text.replace("(", f"({seed}", 1)
        assert resolve({"seed": 3, "curvature": text})["curvature"] == expected
    assert resolve({"seed": 0})["curvature"] == "FisherA()"
    assert resolve({"seed": 3, "preset": "fast"})["curvature"] == "Gram()"
