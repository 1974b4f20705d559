"""Text <-> objects: everything writable reads back equal; everything else is refused in words, and
nothing runs.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.base.errors import UsageError
from featherweight.base.spec import parse, text


@dataclass(frozen=True)
class Leaf:
    bits: int = 4
    code: str = "g"
    scale: float | None = None


@dataclass(frozen=True)
class Tree:
    left: object = None
    right: object = field(default_factory=Leaf)
    derived: int = field(default=7, init=False)


@dataclass(frozen=True)
class Needs:
    bits: int

    def __post_init__(self) -> None:
        if self.bits > 8:
            raise ValueError(f"bits={self.bits} is more than 8")


@dataclass(frozen=True)
class OwnConstructor:
    stored: int

    def __init__(self, bits: int = 4) -> None:
        object.__setattr__(self, "stored", 2 * bits)

    def __repr__(self) -> str:
        return f"OwnConstructor(bits={self.stored // 2})"


NAMESPACE = {"Leaf": Leaf, "Tree": Tree, "Needs": Needs, "OwnConstructor": OwnConstructor}

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
leaves = st.builds(Leaf, bits=st.integers(), code=st.text(), scale=st.none() | st.floats(-1e9, 1e9))
values = st.recursive(
    scalars | leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.text() | st.integers(), inner, max_size=3)
        | st.builds(Tree, left=inner, right=inner)
    ),
    max_leaves=8,
)


@given(values)
def test_round_trip(value: object) -> None:
    assert parse(text(value), NAMESPACE) == value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Leaf(), "Leaf()"),
        (Leaf(bits=2), "Leaf(bits=2)"),
        (Tree(left=Leaf(code="h"), right=Leaf()), "Tree(left=Leaf(code='h'))"),
        (Needs(bits=3), "Needs(bits=3)"),
        (Tree(left=OwnConstructor(3)), "Tree(left=OwnConstructor(bits=3))"),
        ((Leaf(),), "(Leaf(),)"),
        ({"*": Leaf(), "lm_head": None}, "{'*': Leaf(), 'lm_head': None}"),
    ],
)
def test_only_what_differs_is_written(value: object, expected: str) -> None:
    assert text(value) == expected
    assert parse(expected, NAMESPACE) == value


def test_true_is_not_one() -> None:
    assert text(Leaf(bits=True)) == "Leaf(bits=True)"
    assert text(Leaf(bits=4.0)) == "Leaf(bits=4.0)"


def test_a_bare_name_is_a_call() -> None:
    assert parse(" Leaf ", NAMESPACE) == Leaf()
    assert parse("Leaf(3, 'x', scale=-1.5)", NAMESPACE) == Leaf(3, "x", -1.5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("Laef(bits=2)", "did you mean 'Leaf'"),
        ("Leaf(bitz=2)", "did you mean 'bits'"),
        ("Leaf(bits=", "cannot read"),
        ("Leaf(**{'bits': 2})", r"\*\* is not understood"),
        ("__import__('os').system('true')", "is not a literal"),
        ("Leaf(bits=1+1)", "is not a literal"),
        ("[x for x in ()]", "is not a literal"),
        ("f'{Leaf}'", "is not a literal"),
        ("b'raw'", "is not a literal"),
        ("Needs(bits=9)", "bits=9 is more than 8"),
        ("Needs()", "cannot make Needs"),
        ("open('file')", "unknown name 'open'"),
        ("{Leaf(): 1}", "is not a literal"),
        ("(" * 500, "cannot read"),
        ("[" * 30 + "]" * 30, "nested deeper"),
        ("1" * 20_000, "too long"),
    ],
)
def test_refused(wrong: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(wrong, NAMESPACE)


@given(st.text(max_size=60))
def test_any_text_parses_or_is_refused(anything: str) -> None:
    try:
        parse(anything, NAMESPACE)
    except UsageError:
        pass


@pytest.mark.parametrize(
    "value", [float("inf"), float("nan"), object(), {1, 2}, b"x", Leaf(scale=float("inf"))]
)
def test_what_has_no_text(value: object) -> None:
    with pytest.raises(UsageError):
        text(value)
