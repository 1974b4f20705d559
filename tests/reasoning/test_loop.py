"""The whole loop: it learns, continues with the same bits, and survives what is not finite."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_policy
import torch
from torch import Tensor

from featherweight.base.errors import BadInput, UsageError
from featherweight.base.run_folder import RunFolder
from featherweight.data.tasks import TaskExample
from featherweight.reasoning.advantages import Control, RewardControl
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.loop import PolicyStep, Recipe, train
from featherweight.reasoning.methods import METHODS, Method
from featherweight.reasoning.rewards import Accuracy, Linear
from featherweight.reasoning.short_arc import ShortARC
from featherweight.reasoning.surrogates import Surrogate
from featherweight.training.state import StateFile

RECIPE = tiny_policy.RECIPE
CONTROL = ShortARC(governor=Governor(warmup=1, ramp=2, tolerance=0.2), gate="off", floor=1)


class Wrong(tiny_policy.FirstWord):
    def grade(self, example: TaskExample, answer: str) -> float | None:
        return 0.0


def run(
    model: Any,
    recipe: Recipe = RECIPE,
    control: Control = CONTROL,
    method: Method | None = None,
    folder: RunFolder | None = None,
    **settings: Any,
) -> Any:
    marking = settings.pop("marking", None) or tiny_policy.marking()
    return train(
        model,
        settings.pop("questions", None) or tiny_policy.questions(),
        tiny_policy.sampler(model),
        marking,
        control,
        method or tiny_policy.method(),
        recipe,
        folder,
        **settings,
    )


def numbers(step: PolicyStep) -> dict[str, float]:
    """Everything but times."""
    timed = ("sample_seconds", "mark_seconds")
    content = {name: number for name, number in step.figures.items() if name not in timed}
    return content | step.step.parts | {"loss": step.step.loss, "norm": step.step.gradient_norm}


def same(left: dict[str, float], right: dict[str, float]) -> bool:
    """Equal, where NaN equals NaN."""
    return left.keys() == right.keys() and all(
        left[name] == right[name] or (math.isnan(left[name]) and math.isnan(right[name]))
        for name in left
    )


def newest(folder: Path) -> StateFile:
    files = (folder.with_name(f"{folder.name}.partial") / "work" / "reinforce").iterdir()
    return max(map(StateFile, files), key=lambda file: file.numbers["progress"]["step"])


def test_it_learns() -> None:
    """The right answers of random weights become likely in twenty steps."""
    model = tiny_policy.policy()
    recipe = replace(RECIPE, steps=20, group=8, lr=2e-2)
    steps = list(run(model, recipe, RewardControl()))
    first, last = (
        sum(step.figures["accuracy"] for step in part) / 4 for part in (steps[:4], steps[-4:])
    )
    assert first < 0.5 and last > first + 0.3
    assert [step.step.number for step in steps] == list(range(1, 21))
    assert [row["bucket"] for row in steps[0].buckets] == [0, 1]
    assert steps[0].step.parts["clipped"] == 0 and steps[0].step.parts["entropy"] > 1


@pytest.mark.parametrize("updates", [1, 2])
def test_a_run_continues_with_the_same_bits(tmp_path: Path, updates: int) -> None:
    """Weights, state of the control and figures, also when steps after the last checkpoint are
    lost.
    """
    recipe = replace(RECIPE, steps=6, updates=updates, accumulate=2, prompts=2)
    straight = []
    with RunFolder(tmp_path / "straight", {}) as folder:
        model = tiny_policy.policy()
        straight = [numbers(step) for step in run(model, recipe, folder=folder)]
    resumed = []
    with RunFolder(tmp_path / "killed", {}) as folder:
        for step in run(tiny_policy.policy(), recipe, folder=folder):
            resumed.append(numbers(step))
            if step.step.number == 3:
                break
    # Step 3 had no checkpoint. The weights that the program starts with do not matter.
    with RunFolder(tmp_path / "killed", {}) as folder:
        other = tiny_policy.policy(seed=7)
        resumed[2:] = [numbers(step) for step in run(other, recipe, folder=folder)]
    assert len(resumed) == len(straight) == 6
    assert all(map(same, resumed, straight))
    one, two = newest(tmp_path / "straight"), newest(tmp_path / "killed")
    assert sorted(one.names()) == sorted(two.names())
    for name in one.names():
        torch.testing.assert_close(one.read(name), two.read(name), rtol=0, atol=0, equal_nan=True)
    assert int(one.read("loss/state.steps")) == 6 // updates
    assert float(one.read("loss/state.pressure").max()) > 0
    for left, right in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_run_with_other_settings_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as folder:
        for step in run(tiny_policy.policy(), folder=folder):
            if step.step.number == 3:
                break
    others: list[tuple[str, dict[str, Any]]] = [
        ("kappa=0.5", {"control": replace(CONTROL, kappa=0.5)}),
        ("Linear", {"control": RewardControl(Linear(0.001))}),
        ("group=6", {"recipe": replace(RECIPE, group=6)}),
        ("seed=4", {"recipe": replace(RECIPE, seed=4)}),
        ("10 questions", {"questions": tiny_policy.questions()[:10]}),
        ("graded by Wrong", {"marking": tiny_policy.marking(Wrong)}),
        ("LocalTokenMean", {"method": tiny_policy.method("bnpo")}),
    ]
    for text, settings in others:
        with (
            RunFolder(tmp_path / "run", {}) as folder,
            pytest.raises(UsageError, match=f"was trained with other settings(?s:.)*{text}"),
        ):
            next(run(tiny_policy.policy(), folder=folder, **settings))
    with RunFolder(tmp_path / "run", {}) as folder:
        assert next(run(tiny_policy.policy(), folder=folder)).step.number == 3


def test_a_control_with_another_reward_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as folder:
        list(run(tiny_policy.policy(), control=RewardControl(Accuracy()), folder=folder))
    with (
        RunFolder(tmp_path / "run", {}) as folder,
        pytest.raises(UsageError, match=r"Accuracy\(\)(?s:.)*became(?s:.)*Linear\(alpha=0.1\)"),
    ):
        next(run(tiny_policy.policy(), control=RewardControl(Linear(0.1)), folder=folder))


class Spoiled(Surrogate):
    """Ratios that are not a number in the second step."""

    def __init__(self, surrogate: Surrogate, bad: set[int]) -> None:
        self.surrogate, self.bad, self.calls = surrogate, bad, 0

    def __repr__(self) -> str:
        return "Spoiled()"

    def terms(self, logprobs: Any, old: Any, advantages: Any, text: Any) -> Tensor:
        self.calls += 1
        terms = self.surrogate.terms(logprobs, old, advantages, text)
        return terms * (math.nan if self.calls in self.bad else 1.0)

    def is_clipped(self, logprobs: Any, old: Any, advantages: Any, text: Any) -> Tensor:
        return self.surrogate.is_clipped(logprobs, old, advantages, text)


def test_a_step_that_is_not_finite_is_skipped_and_counted() -> None:
    model, method = tiny_policy.policy(), tiny_policy.method()
    method = replace(method, surrogate=Spoiled(method.surrogate, {2}))
    steps, weights = [], []
    for step in run(model, method=method):
        steps.append(step.step)
        weights.append(torch.cat([p.detach().flatten().clone() for p in model.parameters()]))
    assert [step.is_skipped for step in steps] == [False, True, False, False]
    assert steps[-1].num_skipped == 1
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])
    assert all(bool(weight.isfinite().all()) for weight in weights)


@pytest.mark.parametrize("name", METHODS)
def test_wrong_answers_only(name: str) -> None:
    """No method fails, moves a weight or gives a number that is not finite."""
    model = tiny_policy.policy()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    method = tiny_policy.method(name)
    control = RewardControl(Accuracy(), method.scale, method.drop)
    recipe = replace(RECIPE, steps=2)
    for step in run(model, recipe, control, method, marking=tiny_policy.marking(Wrong)):
        assert step.step.loss == 0 == step.step.gradient_norm
        assert step.figures["accuracy"] == 0 and step.figures["all_wrong"] == 1
        assert not step.step.is_skipped
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)


def test_kl_needs_a_reference() -> None:
    method = METHODS["grpo"](tiny_policy.LIMIT)
    with pytest.raises(UsageError, match="kl=0.04 needs a reference model"):
        next(run(tiny_policy.policy(), method=method))
    reference = tiny_policy.policy().requires_grad_(False)
    steps = list(run(tiny_policy.policy(), method=method, reference=reference))
    assert steps[0].step.parts["kl"] == pytest.approx(0, abs=1e-6)
    assert steps[-1].step.parts["kl"] > 1e-4


def test_settings_that_cannot_work() -> None:
    with pytest.raises(UsageError, match="no multiple of updates=3"):
        next(run(tiny_policy.policy(), replace(RECIPE, updates=3)))
    with pytest.raises(UsageError, match="needs 20 questions"):
        next(run(tiny_policy.policy(), replace(RECIPE, prompts=20)))
    with pytest.raises(BadInput, match="no end token"):
        tiny_policy.sampler(tiny_policy.policy()).__class__(tiny_policy.policy(end_id=None))
