"""`LengthReward` without TRL: grouping, grades, pickling, state."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from featherweight.base.errors import BadInput, UsageError
from featherweight.reasoning.adapters.trl import LengthReward
from featherweight.reasoning.adapters.trl.rows import Columns
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.rewards import HAPO, Accuracy, Kimi, Linear, Sizes
from featherweight.reasoning.short_arc import ShortARC

from .toy_grading import FORMAT, answer, equals_gold
from .two_ranks_runs import run_two_ranks

PROMPTS = ["a"] * 4 + ["b"] * 4
LENGTHS = (2, 4, 6, 8, 3, 3, 9, 9)
TEXTS = ["yes", "yes", "yes", "no", "yes", "yes", "yes", "yes"]
IDS = [answer(length) for length in LENGTHS]
FIXED = ShortARC(form="scalar", floor=1, governor=None, fixed_pressure=0.3)


def call(reward: LengthReward, **changes: Any) -> list[float | None]:
    columns: dict[str, Any] = {"prompts": PROMPTS, "completions": TEXTS, "completion_ids": IDS}
    return reward(**columns | {"gold": ["yes"] * 8} | changes)


def reward_of(rule: Any, **settings: Any) -> LengthReward:
    return LengthReward(rule, equals_gold, FORMAT, **{"num_generations": 4} | settings)


def test_length_counts_think_ids() -> None:
    rewards = call(reward_of(Linear(0.01)))
    expected = [c - 0.01 * n for c, n in zip((1, 1, 1, 0, 1, 1, 1, 1), LENGTHS, strict=True)]
    assert rewards == pytest.approx(expected)


def test_bounded_reward() -> None:
    rewards = call(reward_of(FIXED))
    assert rewards[3] == 0
    assert all(reward is not None and reward >= 0.7 for reward in rewards[:3] + rewards[4:])
    assert rewards[6] < rewards[4] == 1  # type: ignore[operator]


def test_messages_are_read() -> None:
    prompts = [[{"role": "user", "content": prompt}] for prompt in PROMPTS]
    texts = [[{"role": "assistant", "content": text}] for text in TEXTS]
    assert call(reward_of(FIXED), prompts=prompts, completions=texts) == call(reward_of(FIXED))


def test_ungraded_is_masked() -> None:
    golds = ["yes", None, "error", "no", *["yes"] * 4]
    with pytest.warns(UserWarning, match="failed for 1 of 8"):
        rewards = call(reward_of(Kimi()), gold=golds)
    assert [reward is None for reward in rewards] == [False, True, True, *[False] * 5]
    # As if the two answers did not exist: lengths 2 and 8 remain.
    assert rewards[0] == pytest.approx(1 + 0.4 * 0.5)


def test_a_broken_grader_is_told() -> None:
    with pytest.raises(UsageError, match="failed for all 8 answers.*KeyError"):
        reward_of(Kimi())(prompts=PROMPTS, completions=TEXTS, completion_ids=IDS)


def test_no_eos_is_wrong() -> None:
    ids = [answer(2, is_cut=True), *IDS[1:]]
    assert call(reward_of(Accuracy()), completion_ids=ids)[0] == 0
    assert call(reward_of(Accuracy()), completion_ids=ids, gold=[None] * 8)[0] == 0


@pytest.mark.parametrize("prompts", [["a", "b"] * 4, ["a"] * 3 + ["b"] * 4 + ["a"]])
def test_interleaved_rows_are_refused(prompts: list[str]) -> None:
    with pytest.raises(UsageError, match="rows 0 to 3.*their prompts differ"):
        call(reward_of(Accuracy()), prompts=prompts)


def test_split_groups_are_refused() -> None:
    with pytest.raises(UsageError, match="8 rows.*num_generations=3.*such as 9"):
        call(reward_of(Accuracy(), num_generations=3))


def test_a_group_has_two_answers() -> None:
    with pytest.raises(UsageError, match="at least 2"):
        reward_of(Accuracy(), num_generations=1)


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    """A group lies across two processes of six rows each."""
    run_two_ranks(tmp_path, "reward")
    names = ("reward_1_0", "reward_2_0", "reward_2_1")
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in names)
    assert [a + b for a, b in zip(first["steps"], second["steps"], strict=True)] == one["steps"]
    assert one["steps"][0] != one["steps"][2], "the governor never opened"
    assert one["refusals"] == ["", ""]
    # Alone, a process has parts of groups, and a governor would see another accuracy.
    for content in (first, second):
        assert "6 rows are no whole groups of num_generations=4" in content["refusals"][0]
        assert "such as 8" in content["refusals"][0]
        assert "each of 2 processes learn something else" in content["refusals"][1]


def test_decoupled_needs_a_trainer() -> None:
    with pytest.raises(UsageError, match="decoupled form needs a trainer"):
        reward_of(ShortARC())


def test_columns_number_prompts_and_buckets() -> None:
    reward = reward_of(HAPO(), columns=Columns(number="number"), sizes=Sizes(prompts=5))
    call(reward, number=[4] * 4 + [2] * 4)
    assert reward.state_dict()["shortest"].tolist() == [torch.inf, torch.inf, 3, torch.inf, 2]
    with pytest.raises(UsageError, match="no column 'number'; it has gold"):
        call(reward)


def test_eval_is_unshaped() -> None:
    trainer = SimpleNamespace(model=SimpleNamespace(training=False))
    log = type("Log", (), {"__self__": trainer})()
    reward = reward_of(ShortARC(form="scalar"))
    # In evaluation groups may have another size, and the rule learns nothing.
    rewards = call(reward, prompts=["a", "b"] * 4, log_metric=log)
    assert rewards == [1, 1, 1, 0, 1, 1, 1, 1]
    assert reward.state_dict()["num_steps"] == 0


def test_trl_pickle() -> None:
    reward = reward_of(ShortARC(form="scalar", floor=1, governor=Governor(warmup=0, ramp=2)))
    assert reward.__name__ == "length_reward"
    call(reward)
    twin = pickle.loads(pickle.dumps(reward))
    assert twin.__name__ == reward.__name__
    assert call(twin) == call(reward)


def test_governor_resume() -> None:
    rule = ShortARC(form="scalar", floor=1, governor=Governor(warmup=0, ramp=3))
    whole_run, first = reward_of(rule), reward_of(rule)
    for _ in range(3):
        call(whole_run)
        call(first)
    second = reward_of(rule)
    second.load_state_dict(first.state_dict())
    assert call(second) == call(whole_run)
    with pytest.raises(BadInput, match="this rule"):
        reward_of(Accuracy()).load_state_dict(first.state_dict())


def test_import_needs_no_trainer() -> None:
    """No trainer is imported with the adapters."""
    program = (
        "import sys, featherweight.reasoning.adapters.trl, featherweight.reasoning.adapters.verl, "
        "featherweight.reasoning.adapters.openrlhf, featherweight.reasoning.adapters.verifiers\n"
        "assert not {'trl', 'verl', 'openrlhf', 'verifiers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
