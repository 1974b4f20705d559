"""docs/compatibility.md says what is true now: `python benchmarks/compatibility.py` writes it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module", name="compatibility")
def _compatibility() -> object:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        import compatibility
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    return compatibility


@pytest.mark.filterwarnings("ignore")
def test_the_page_is_current(compatibility: object) -> None:
    page = compatibility.page()  # type: ignore[attr-defined]
    assert (ROOT / "docs" / "compatibility.md").read_text() == page


def test_every_family_of_the_tests_has_a_row(compatibility: object) -> None:
    import other_families

    from featherweight.models.families import FAMILIES

    names = {family.model_type for family in FAMILIES} | set(other_families.SETTINGS)
    assert names <= set(compatibility.NAMES)  # type: ignore[attr-defined]
