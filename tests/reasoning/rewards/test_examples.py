"""Each rule gives the rewards that its paper's formula gives by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.reasoning.rewards.answers import answers

from featherweight.base.errors import UsageError
from featherweight.base.spec import parse
from featherweight.reasoning.rewards import BY_NAME, Sizes, rewards

# Right answers of 1000, 2000 and 4000 tokens, and wrong ones of 1000 and 5000; p = 0.6.
FIVE: dict[str, Any] = {"lengths": [1000, 2000, 4000, 1000, 5000], "correct": [1, 1, 1, 0, 0]}


EXAMPLES: dict[str, tuple[str, dict[str, Any], list[float]]] = {
    "none": ("none", FIVE, [1, 1, 1, 0, 0]),
    # 1 - 0.001 L, and -0.001 L
    "linear": ("linear", FIVE, [0, -1, -3, -1, -5]),
    # |2000 - L| = 1000, 0, 2000, 1000, 3000, times 0.0003
    "l1_exact": ("l1_exact", {**FIVE, "budget": [2000.0] * 5}, [0.7, 1, 0.4, -0.3, -0.9]),
    # 0.0003 (2000 - L) + 0.5 = 0.8, 0.5, -0.1; the last is clipped
    "l1_max": ("l1_max", {**FIVE, "budget": [2000.0] * 5}, [0.8, 0.5, 0, 0, 0]),
    # shortest 1000, longest 5000: saving 0.5, 0.25, -0.25, min(0, 0.5), -0.5; times 0.4
    "kimi": ("kimi", FIVE, [1.2, 1.1, 0.9, 0, -0.2]),
    "kimi without spread": ("kimi", {"lengths": [7, 7], "correct": [1, 0]}, [1, 0]),
    # right lengths 1000 and 3000: mean 2000, std 1000; at 2500 a wrong one; sigmoid(-1), sigmoid(1)
    "tlmre": (
        "tlmre(alpha=0.2)",
        {"lengths": [1000, 3000, 2500], "correct": [1, 1, 0]},
        [1 - 0.2 / (1 + math.e), 1 - 0.2 / (1 + 1 / math.e), 0],
    ),
    # shortest right 1000; 2 - 0.001 |L - 1000|
    "shorterbetter": ("shorterbetter", FIVE, [2, 1, -1, 0, -4]),
    # none right: mean length 2000
    "shorterbetter, none right": (
        "shorterbetter",
        {"lengths": [1000, 3000], "correct": [0, 0]},
        [-1, -1],
    ),
    # 1.5 within 2000 tokens, 1 beyond; wrong -0.5, cut -1
    "laser": (
        "laser(target=2000)",
        {**FIVE, "limit": 5000, "is_cut": [False] * 4 + [True]},
        [1.5, 1.5, 1, -0.5, -1],
    ),
    # max(p, 1/K) = 0.6: 1e-4 L 0.6 = 0.06, 0.12, 0.24, 0.06, 0.3
    "alp": ("alp(beta=1e-4)", FIVE, [0.94, 0.88, 0.76, -0.06, -0.3]),
    # none right: 1/K = 0.5
    "alp, none right": (
        "alp(beta=1e-4)",
        {"lengths": [1000, 2000], "correct": [0, 0]},
        [-0.05, -0.1],
    ),
    # mean right length 4000, B = 0.5 * 4000 + 0.5 * 16000 = 10000: z = -0.8, 0.4 (wrong), -0.4
    # right 0.5 + 0.4 and 0.5 + 0.2; wrong min(0.36 - 0.1, -0.1) and -0.72 - 0.1
    "dast": (
        "dast",
        {"lengths": [2000, 6000, 14000, 2000], "correct": [1, 1, 0, 0], "limit": 16000},
        [0.9, 0.7, -0.1, -0.82],
    ),
    # all right: B is the mean, 1000; z = -0.9, 0.9; right 0.95 and max(0.05, 0.1)
    "dast, all right": (
        "dast",
        {"lengths": [100, 1900], "correct": [1, 1]},
        [0.95, 0.1],
    ),
    # longest right 4000, shortest 1000: 0.05 + 0.95 * 1.2 * (1, 2/3, 0); f = 1 but for the cut one
    "jet": (
        "jet",
        {**FIVE, "limit": 5000, "is_cut": [False] * 4 + [True]},
        [1 + 0.05 + 1.14, 1 + 0.05 + 0.76, 1.05, 0.1, 0],
    ),
    # cos(0) = 1, cos(pi/2) = 0, cos(pi) = -1: earliness 1, 0.5, 0
    "cosine": (
        "cosine",
        {"lengths": [0, 50, 100, 0, 50, 100], "correct": [1, 1, 1, 0, 0, 0], "limit": 100},
        [1, 0.75, 0.5, -1, -0.75, -0.5],
    ),
    # limit 5000, C = 1000: from 4000 on (4000 - L) / 1000
    "dapo_overlong": (
        "dapo_overlong",
        {"lengths": [1000, 4000, 4500, 5000, 4500], "correct": [1, 1, 1, 1, 0], "limit": 5000},
        [1, 1, 0.5, 0, -1.5],
    ),
    "dler": ("dler(target=2000)", FIVE, [1, 1, 0, 0, 0]),
    # p = 0.6 > 0.5: 2000 tokens
    "da_dler, easy": ("da_dler", FIVE, [1, 1, 0, 0, 0]),
    # p = 1/3: 4000 tokens
    "da_dler, hard": (
        "da_dler",
        {"lengths": [4000, 1000, 1000], "correct": [1, 0, 0]},
        [1, 0, 0],
    ),
    # 3000 / L - 1 + 2 (c - 0.5): 0.5 + 1, -0.25 + 1, 0.5 - 1, -0.4 - 1; 29 - 1 is clipped to 4
    "o1_pruner": (
        "o1_pruner",
        {"lengths": [2000, 4000, 2000, 5000, 100], "correct": [1, 1, 0, 0, 0]}
        | {"reference_length": [3000.0] * 5, "reference_accuracy": [0.5] * 5},
        [1.5, 0.75, -0.5, -1.4, 4],
    ),
    "thinkprune, first stage": ("thinkprune", {**FIVE, "step": 179}, [1, 1, 1, 0, 0]),
    # 3000 tokens from step 180, 2000 from 360 on
    "thinkprune, second stage": (
        "thinkprune",
        {"lengths": [3000, 4000], "correct": [1, 1], "step": 180},
        [1, 0],
    ),
    "thinkprune, last stage": (
        "thinkprune",
        {"lengths": [2000, 3000], "correct": [1, 1], "step": 9999},
        [1, 0],
    ),
    # 0.25 * 0.6 * L / 4000 = 0.0375, 0.075, 0.15
    "prime_rl": ("prime_rl", FIVE, [0.9625, 0.925, 0.85, 0, 0]),
    # 0.15 L / 5000
    "prime_rl, all answers": (
        "prime_rl(correct_only=False)",
        FIVE,
        [0.97, 0.94, 0.88, -0.03, -0.15],
    ),
    # the third right exit gets a quarter, equal lengths the same
    "s_grpo": (
        "s_grpo",
        {"lengths": [300, 100, 200, 50, 100], "correct": [1, 1, 1, 0, 1]},
        [0.125, 1, 0.25, 0, 1],
    ),
}


@pytest.mark.parametrize("case", EXAMPLES)
def test_by_hand(case: str) -> None:
    text, fields, expected = EXAMPLES[case]
    rule = parse(text, BY_NAME)
    graded = answers(**fields)
    got = rewards(rule, graded, rule.start(Sizes()))
    assert got.tolist() == pytest.approx(expected, abs=1e-9)


def test_every_stateless_rule_has_an_example() -> None:
    stateless = {name for name, rule in BY_NAME.items() if not rule().start(Sizes())}
    assert stateless == {parse(text, BY_NAME).name for text, _, _ in EXAMPLES.values()}


def test_short_rl() -> None:
    rule = BY_NAME["short_rl"]()
    graded = answers([1000, 1100, 2000, 3000, 500], [1, 1, 1, 1, 0])
    # shortest right 1000, longest 3000; 1100 is within the tolerance; 0.5 - 1/2 and 0.5 - 1
    shaped = [1.5, 1.5, 1, 0.5, 0]
    state = rule.start(Sizes())
    assert rewards(rule, graded, state).tolist() == pytest.approx(shaped)
    # 0.8 is the best; 0.76 is within 0.05 of it; 0.5 is not, and the gate closes
    state = rule.update(state, answers([9] * 5, [1, 1, 1, 1, 0]))
    assert (float(state["accuracy"]), float(state["best_accuracy"])) == (0.8, 0.8)
    state = rule.update(state, answers([9] * 25, [1] * 19 + [0] * 6))
    assert rewards(rule, graded, state).tolist() == pytest.approx(shaped)
    state = rule.update(state, answers([9] * 2, [1, 0]))
    assert float(state["best_accuracy"]) == 0.8
    assert rewards(rule, graded, state).tolist() == [1, 1, 1, 1, 0]


def test_a_dlp() -> None:
    rule = BY_NAME["a_dlp"](penalty=1e-4, rate=1e-3, reference=0.6)
    state = rule.start(Sizes())
    # 1 - 1e-4 L, -1e-4 L
    graded = answers([1000, 2000], [1, 0])
    assert rewards(rule, graded, state).tolist() == pytest.approx([0.9, -0.2])
    # 1e-4 + 1e-3 (0.8 - 0.6) = 3e-4; then 1e-3 (0 - 0.6) takes it below 0
    state = rule.update(state, answers([9] * 5, [1, 1, 1, 1, 0]))
    assert float(state["penalty"]) == pytest.approx(3e-4)
    state = rule.update(state, answers([9] * 5, [0] * 5))
    assert float(state["penalty"]) == 0


def test_aalc() -> None:
    rule = BY_NAME["aalc"](weight=0.1, power=2, target=0.8)
    graded = answers([2500, 10000, 2500], [1, 1, 0], limit=10000)
    state = rule.start(Sizes())
    assert rewards(rule, graded, state).tolist() == [1, 1, 0]
    # accuracy 0.4 of 0.8: a = 0.5; 0.9 + 0.05; min(0.25, L / Lmax) = 0.25 for all; 0.1 * 0.75
    state = rule.update(state, answers([9] * 5, [1, 1, 0, 0, 0]))
    assert rewards(rule, graded, state).tolist() == pytest.approx([1.025, 1.025, 0.075])
    # accuracy 1: a = 1; 0.9; savings 0.75, 0, 0.75
    state = rule.update(state, answers([9], [1]))
    assert rewards(rule, graded, state).tolist() == pytest.approx([0.975, 0.9, 0.075])


def test_hapo() -> None:
    rule = BY_NAME["hapo"](weight=0.5)
    state = rule.start(Sizes(prompts=3))
    graded = answers([1000, 3000, 1000, 4000, 3000], [1, 1, 0, 0, 1], [1, 1, 1, 1, 2])
    assert rewards(rule, graded, state).tolist() == [1, 1, 0, 0, 1]
    state = rule.update(state, answers([1500, 2000, 100], [1, 1, 0], [1, 1, 1]))
    assert state["shortest"].tolist() == [math.inf, 1500, math.inf]
    # L / h = 2/3, 2, 2/3, 8/3: cos(pi/3) = 0.5, cos(pi) = -1, which a right answer has at -0.7;
    # wrong: min(0, 0.5), -1 also beyond 2h; times 0.5. Prompt 2 has no right answer yet.
    expected = [1.25, 0.65, 0, -0.5, 1]
    assert rewards(rule, graded, state).tolist() == pytest.approx(expected)
    with pytest.raises(UsageError, match="number of prompts of the data set"):
        rule.update(state, answers([1], [1], [3]))


def test_laser_d() -> None:
    rule, explorer = BY_NAME["laser_d"](shortest=1), BY_NAME["laser_de"](shortest=1)
    state = rule.start(Sizes())
    easy = {"lengths": [1000, 2000, 3000, 4000], "correct": [1, 1, 1, 0], "limit": 16000}
    # Before the first measurement every length is within the target.
    assert rewards(rule, answers(**easy), state).tolist() == [1.5, 1.5, 1.5, -0.5]
    # Group of 4, easy: 2 right at least, so a coverage of 1/2 is enough: 2000. Medium: 1 right at
    # least, so all answers must be within: 5000. Hard: the same, but none was sampled.
    measured = answers(
        [1000, 2000, 3000, 4000, 1000, 2000, 3000, 5000],
        [1, 1, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 1],
        limit=16000,
    )
    state = rule.update(state, measured)
    assert state["targets"].tolist() == [math.inf, 5000, 2000]
    assert not state["answers"].any() and not state["coverage"].any()
    assert rewards(rule, answers(**easy), state).tolist() == [1.5, 1.5, 1, -0.5]
    # LASER-DE: a wrong answer beyond the target gets -0.5 + 0.5, unless it is cut or repeats.
    graded = answers(
        [2000, 3000, 5000, 16000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000],
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1],
        limit=16000,
        is_cut=[False, False, False, True] + [False] * 8,
        repeats=[False, False, True, False] + [False] * 8,
    )
    got = rewards(explorer, graded, state).tolist()
    assert got == [-0.5, 0, -0.5, -1] + [1.5] * 8


def test_laser_d_measures_every_twenty_steps() -> None:
    rule = BY_NAME["laser_d"](shortest=4, interval=20)
    state = rule.start(Sizes())
    for step in range(1, 20):
        graded = answers([1000] * 3, [1, 1, 1], limit=16000, step=step)
        state = rule.update(state, graded)
        assert state["targets"].tolist() == [math.inf] * 3
    assert int(state["answers"][2]) == 57
    state = rule.update(state, answers([1000] * 3, [1, 1, 1], limit=16000, step=20))
    # 1000 covers all, but no target is below 4 sixteenths of the limit.
    assert state["targets"].tolist() == [math.inf, math.inf, 4000]


def test_what_a_rule_needs_is_said() -> None:
    graded = answers([10, 20], [1, 0])
    for name, message in (
        ("l1_exact", "kimi or laser"),
        ("l1_max", "kimi or laser"),
        ("o1_pruner", "hapo"),
    ):
        with pytest.raises(UsageError, match=message):
            BY_NAME[name]().rewards(graded, {})


def test_state_is_not_changed() -> None:
    graded = answers([10, 20, 30], [1, 0, 1], step=20)
    for name, rule_class in BY_NAME.items():
        rule = rule_class()
        state = rule.start(Sizes())
        before = {key: tensor.clone() for key, tensor in state.items()}
        after = rule.update(state, graded)
        assert after.keys() == before.keys(), name
        for key, tensor in before.items():
            assert torch.equal(state[key].nan_to_num(-1), tensor.nan_to_num(-1))
            assert after[key].shape == tensor.shape and after[key].dtype == tensor.dtype
