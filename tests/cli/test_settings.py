"""File, flags and --set merge into the part of the recipe that the user decided."""

from __future__ import annotations

from pathlib import Path

import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.cli.settings import gather


def test_later_wins(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("bits: 2\npreset: fast\nseed: 1\ncalibration: {count: 64, length: 128}\n")
    settings = gather(
        path,
        {"bits": 3, "preset": None, "seed": 2},
        ["seed=4", "calibration.count=32", "gate=None"],
    )
    assert settings == {
        "bits": 3,
        "preset": "fast",
        "seed": 4,
        "calibration": {"count": 32, "length": 128},
        "gate": None,
    }


@pytest.mark.parametrize(
    ("change", "settings"),
    [
        ("plan.lm_head=None", {"plan": {"lm_head": None}}),
        ("plan.lm_head=Int(bits=8, group=32)", {"plan": {"lm_head": "Int(bits=8, group=32)"}}),
        (
            "plan.model.layers.0.*=Trellis(bits=3)",
            {"plan": {"model.layers.0.*": "Trellis(bits=3)"}},
        ),
        ("rounding=YAQA(damp=0.01)", {"rounding": "YAQA(damp=0.01)"}),
        ("seed=7", {"seed": 7}),
        ("calibration.files=[a.txt, b.txt]", {"calibration": {"files": ["a.txt", "b.txt"]}}),
        ("model=name=with=equals", {"model": "name=with=equals"}),
        ("transform={[", {"transform": "{["}),
    ],
)
def test_values(change: str, settings: dict[str, object]) -> None:
    assert gather(None, {}, [change]) == settings


def test_a_pattern_that_is_set_stands_first(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("plan: {lm_head: Int(bits=8), '*': Trellis(bits=2)}\n")
    settings = gather(path, {}, ["plan.*.down_proj=Trellis(bits=3)", "plan.*=Trellis(bits=4)"])
    assert list(settings["plan"].items()) == [
        ("*", "Trellis(bits=4)"),
        ("*.down_proj", "Trellis(bits=3)"),
        ("lm_head", "Int(bits=8)"),
    ]


@pytest.mark.parametrize("change", ["seed", "=3", "plan.=3", ".x=3", "bits.x=3"])
def test_wrong_changes(change: str) -> None:
    with pytest.raises(UsageError):
        gather(None, {"bits": 2}, [change])


@pytest.mark.parametrize("content", [b"a: [", b"- 1\n- 2\n", b"\xff\xfe", b"1: 2\n"])
def test_wrong_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(BadInput):
        gather(path, {})


def test_an_empty_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("# nothing yet\n")
    assert gather(path, {"bits": None}) == {}
