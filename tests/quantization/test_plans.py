"""A plan decides every matrix, every pattern decides something, and what cannot work is said before
the work.
"""

from __future__ import annotations

import pytest

from featherweight.base.errors import BadInput, UsageError
from featherweight.quantization.formats import Int, Trellis
from featherweight.quantization.plans import Plan

SHAPES = {
    "model.embed_tokens": (300, 64),
    "model.layers.0.self_attn.q_proj": (64, 64),
    "model.layers.0.mlp.down_proj": (64, 160),
    "lm_head": (300, 64),
}


def test_first_match_wins_in_the_order_of_the_model() -> None:
    plan = Plan(
        {"*.down_proj": Int(bits=3), "model.embed_tokens": Int(bits=8), "*": Trellis(bits=2)}
    )
    assert plan.assign(SHAPES) == {
        "model.embed_tokens": Int(bits=8),
        "model.layers.0.self_attn.q_proj": Trellis(bits=2),
        "model.layers.0.mlp.down_proj": Int(bits=3),
        "lm_head": Trellis(bits=2),
    }
    assert list(plan.assign(SHAPES)) == list(SHAPES)
    assert plan.decide(SHAPES)["model.layers.0.mlp.down_proj"] == "*.down_proj"


def test_none_leaves_a_layer_and_says_so() -> None:
    plan = Plan({"lm_head": None, "*embed*": None, "*": Int(bits=4)})
    assert plan.dense_matrices(SHAPES) == ["model.embed_tokens", "lm_head"]
    assert "lm_head" not in plan.assign(SHAPES)


def test_a_tied_head_is_a_second_name_of_the_table() -> None:
    shapes = {name: shape for name, shape in SHAPES.items() if name != "lm_head"}
    plan = Plan({"lm_head": Int(bits=8), "*": Trellis(bits=2)})
    assert plan.assign(shapes, {"lm_head": "model.embed_tokens"})["model.embed_tokens"] == Int(
        bits=8
    )
    both = Plan({"lm_head": Int(bits=8), "model.embed_tokens": Int(bits=8), "*": Trellis(bits=2)})
    assert both.assign(shapes, {"lm_head": "model.embed_tokens"})["model.embed_tokens"] == Int(
        bits=8
    )
    with pytest.raises(UsageError, match="'lm_head' matches no layer"):
        plan.assign(shapes)


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(
        UsageError, match=r"'\*\.donw_proj' matches no layer.*model\.layers\.0\.mlp\.down_proj"
    ):
        Plan({"*.donw_proj": Int(bits=4), "*": Int(bits=2)}).assign(SHAPES)


def test_a_shadowed_pattern_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'lm_head' never applies: '\*' stands before it"):
        Plan({"*": Int(bits=2), "lm_head": Int(bits=8)}).assign(SHAPES)


def test_every_layer_is_decided() -> None:
    with pytest.raises(UsageError, match="lm_head match no pattern"):
        Plan({"model.*": Int(bits=2)}).assign(SHAPES)


def test_formats_are_asked_about_all_layers_at_once() -> None:
    with pytest.raises(UsageError, match=r"q_proj has 64 inputs.*down_proj has 160 inputs"):
        Plan({"*": Int(bits=4, group=48)}).assign(SHAPES)


@pytest.mark.parametrize("patterns", [{}, {"*": "Int(bits=4)"}, {3: Int(bits=4)}])
def test_what_is_no_plan_is_refused(patterns: dict) -> None:
    with pytest.raises((UsageError, TypeError)):
        Plan(patterns)


def test_a_model_without_matrices_is_refused() -> None:
    with pytest.raises(BadInput, match="no linear layers"):
        Plan({"*": Int(bits=4)}).assign({})


def test_a_plan_is_its_text_and_stays_as_it_was_made() -> None:
    patterns = {"lm_head": None, "*": Trellis(bits=2)}
    plan = Plan(patterns)
    patterns.clear()
    assert repr(plan) == "Plan({'lm_head': None, '*': Trellis(bits=2)})"
    assert eval(repr(plan), {"Plan": Plan, "Trellis": Trellis}) == plan
