"""GFPO keeps the right rows; DRPO compares right answers with right ones only."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.reasoning.rewards.answers import answers, batches

from featherweight.base.errors import UsageError
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards.drpo import advantages
from featherweight.reasoning.rewards.gfpo import keep


def test_gfpo_by_hand() -> None:
    group = answers([400, 100, 300, 200, 50], [1, 0, 1, 1, math.nan])
    assert keep(group, 2).tolist() == [False, True, False, True, False]
    # c / L: 1/400, 0, 1/300, 1/200
    assert keep(group, 2, by="efficiency").tolist() == [False, False, True, True, False]
    # Of two answers of 100 tokens the right one is kept, of two wrong ones the shorter.
    assert keep(answers([100, 100], [0, 1]), 1).tolist() == [False, True]
    assert keep(answers([200, 100], [0, 0]), 1, by="efficiency").tolist() == [False, True]
    assert keep(answers([0, 0], [0, 1]), 1, by="efficiency").tolist() == [False, True]


@given(batches(ungraded=True, num_prompts=1), st.integers(1, 12), st.randoms())
def test_gfpo_keeps_k_of_any_group_in_any_order(group: Marks, k: int, order) -> None:
    rows = list(range(len(group)))
    order.shuffle(rows)
    shuffled = group.select(torch.tensor(rows))
    for by in ("length", "efficiency"):
        is_kept = keep(group, k, by)
        assert int(is_kept.sum()) == min(k, int(group.has_mark.sum()))
        assert not bool((is_kept & ~group.has_mark).any())
        pairs = [
            sorted(zip(g.lengths[m].tolist(), g.correct[m].tolist(), strict=True))
            for g, m in ((group, is_kept), (shuffled, keep(shuffled, k, by)))
        ]
        assert pairs[0] == pairs[1]


def test_gfpo_refuses() -> None:
    with pytest.raises(UsageError, match="keeps 8 of 16"):
        keep(answers([1], [1]), 0)


def test_drpo_by_hand() -> None:
    group = answers([100, 300, 200, 400, 9], [1, 1, 0, 0, math.nan], limit=1000)
    scores = torch.tensor([-1.0, -2.0, -1.0, -2.0, -3.0])
    got = advantages(group, scores, lam=0.2, tau=0.5).tolist()
    # right: exp(0.9 / 0.2) and exp(0.7 / 0.2), that is e to 1; wrong: exp(-2) and exp(-4)
    right, wrong = 1 / (1 + math.exp(-1)), 1 / (1 + math.exp(-2))
    assert got == pytest.approx([right, 1 - right, -wrong, wrong - 1, 0])


@given(batches(ungraded=True, num_prompts=1))
def test_drpo_never_pushes_a_right_answer_down(group: Marks) -> None:
    scores = torch.linspace(-3, 0, len(group))
    got = advantages(group, scores)
    is_wrong = group.has_mark & ~group.is_correct
    assert bool(got.isfinite().all())
    if not bool(group.is_correct.any()) or not bool(is_wrong.any()):
        assert not bool(got.any())
        return
    assert bool((got[group.is_correct] > 0).all()) and bool((got[is_wrong] < 0).all())
    assert float(got[group.is_correct].sum()) == pytest.approx(1)
    assert float(got.sum()) == pytest.approx(0, abs=1e-12)
    # Wrong answers do not change the advantages of right ones.
    lengths = torch.where(is_wrong, group.lengths / 2, group.lengths)
    other = answers(lengths.tolist(), group.correct.tolist(), limit=group.limit)
    right = advantages(other, scores)[group.is_correct]
    assert torch.allclose(right, got[group.is_correct], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("lam", "tau"), [(0.0, 1.0), (0.1, -1.0), (math.nan, 1.0)])
def test_drpo_refuses(lam: float, tau: float) -> None:
    with pytest.raises(UsageError, match="should be above 0"):
        advantages(answers([1], [1]), torch.zeros(1), lam, tau)
