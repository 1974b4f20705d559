"""verl's advantage estimator without verl: equal to our own on recorded answers."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from featherweight.base.errors import UsageError
from featherweight.reasoning.adapters.verl import (
    NAME,
    ShortARCEstimator,
    compute_score,
    make_compute_score,
)
from featherweight.reasoning.control_state import ControlState
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import Sizes
from featherweight.reasoning.short_arc import ShortARC

# A step of four prompts with four answers each, as verl hands it over: ids of the prompts
# interleaved, the reward at the last token. (uid, length, correctness; -1: ungraded)
RECORDED = [
    *[("u2", 5, 1), ("u7", 9, 1), ("u1", 4, 0), ("u9", 3, 1), ("u2", 9, 1), ("u7", 3, 1)],
    *[("u1", 10, 1), ("u9", 3, -1), ("u2", 6, 0), ("u7", 4, 1), ("u1", 2, 0), ("u9", 7, 1)],
    *[("u2", 2, 1), ("u7", 8, 1), ("u1", 5, 0), ("u9", 3, 0)],
]
LIMIT = 10
CONTROL = ShortARC(floor=1, gate_low=0, governor=Governor(warmup=0, ramp=2, tolerance=0.3))
# At the third step of the first four rows, by hand: lambda is 1 and the quantile 0.495.
# u2: p 3/4, tau 1.05 (2 + 0.99 3) = 5.2185, s(9) = -0.7246; 1/4 + 3/4 (0 + 0.7246 / 3)
# u7: p 1, tau 1.05 (4 + 0.485 4) = 6.237, s(9) = -0.4430, s(8) = -0.2827; s(9) - mean of four
# u9: p 2/3, tau 1.05 (3 + 0.495 4) = 5.229, s(7) = -0.3387; 1/3 + 2/3 0.3387 / 2
ADVANTAGES = [0.43116, -0.26158, 0.0, 0.44623]


def batch() -> tuple[torch.Tensor, torch.Tensor, Any]:
    rewards, mask = torch.zeros(len(RECORDED), LIMIT), torch.zeros(len(RECORDED), LIMIT)
    for row, (_, length, score) in enumerate(RECORDED):
        mask[row, :length] = 1
        rewards[row, length - 1] = score
    return rewards, mask, np.array([uid for uid, _, _ in RECORDED], dtype=object)


def marks(step: int) -> Marks:
    """The same answers for our loop; one of them is as long as the limit, thus cut."""
    names = ["u2", "u7", "u1", "u9"]
    is_cut = [length == LIMIT for _, length, _ in RECORDED]
    scores = [float("nan") if score < 0 else float(score) for _, _, score in RECORDED]
    return Marks(
        torch.tensor([0.0 if cut else c for cut, c in zip(is_cut, scores, strict=True)]),
        torch.tensor([float(length) for _, length, _ in RECORDED]),
        torch.tensor([names.index(uid) for uid, _, _ in RECORDED]),
        LIMIT,
        is_cut=torch.tensor(is_cut),
        step=step,
    )


def test_verl_estimator_equals_ours() -> None:
    estimator, state = ShortARCEstimator(CONTROL, LIMIT), ControlState(CONTROL, Sizes())
    rewards, mask, index = batch()
    for step in range(3):
        advantages, returns = estimator(
            token_level_rewards=rewards, response_mask=mask, index=index, config=None
        )
        expected = state.take(marks(step)).numbers.float()[:, None] * mask
        assert torch.equal(advantages, expected)
        assert torch.equal(returns, advantages)
    assert estimator.facts["pressure"] > 0
    torch.testing.assert_close(advantages[:4, 0], torch.tensor(ADVANTAGES), rtol=0, atol=1e-5)


def test_order_of_rows_is_of_no_account() -> None:
    estimator, other = ShortARCEstimator(CONTROL, LIMIT), ShortARCEstimator(CONTROL, LIMIT)
    rewards, mask, index = batch()
    order = torch.randperm(len(RECORDED))
    for _ in range(3):
        advantages, _ = estimator(rewards, mask, index)
        permuted, _ = other(rewards[order], mask[order], index[order.numpy()])
        torch.testing.assert_close(permuted, advantages[order])


def test_ungraded_is_masked() -> None:
    rewards, mask, index = batch()
    row = next(row for row, (_, _, score) in enumerate(RECORDED) if score == -1)
    advantages, _ = ShortARCEstimator(CONTROL, LIMIT)(rewards, mask, index)
    assert not advantages[row].any()


def test_traps_are_refused() -> None:
    rewards, mask, index = batch()
    estimator = ShortARCEstimator(CONTROL, LIMIT)
    with pytest.raises(UsageError, match="no uid"):
        estimator(rewards, mask)
    with pytest.raises(UsageError, match="rollout.n"):
        estimator(rewards, mask, np.arange(len(RECORDED)))
    with pytest.raises(UsageError, match="a reward is -0.01.*use_kl_in_reward"):
        estimator(rewards.new_full(rewards.shape, -0.001), mask, index)
    with pytest.raises(UsageError, match="at least 1 token"):
        ShortARCEstimator(CONTROL, 0)


def test_register_needs_verl(monkeypatch: pytest.MonkeyPatch) -> None:
    estimator, registry = ShortARCEstimator(CONTROL, LIMIT), {}
    monkeypatch.setitem(sys.modules, "verl", None)  # as if it were not installed
    with pytest.raises(UsageError, match="pip install verl"):
        estimator.register()
    for name in ("verl", "verl.trainer", "verl.trainer.ppo", "verl.trainer.ppo.core_algos"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    core: Any = sys.modules["verl.trainer.ppo.core_algos"]
    core.register_adv_est = lambda name: lambda function: registry.update({name: function})
    estimator.register()
    assert registry == {NAME: estimator}


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("6 x 7</think> 42 ", 1),
        ("6 x 7</think> 43", 0),
        ("42", 0),  # no end of thought
        ("a</think>b</think>42", 0),
        ("42</think> the answer", 0),
    ],
)
def test_compute_score(text: str, score: float) -> None:
    assert compute_score("maths", text, "42", {}) == {"score": score, "acc": score}


def test_compute_score_of_a_grader() -> None:
    def grade(example: Any, text: str) -> float | None:
        return None if example["level"] == 3 else float(text == example["ground_truth"])

    score = make_compute_score(grade)
    assert score("maths", "42", "42", {"level": 1}) == {"score": 1, "acc": 1}
    assert score("maths", "42", "42", {"level": 3}) == {"score": -1, "acc": 0}
