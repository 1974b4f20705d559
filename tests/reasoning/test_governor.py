"""The multiplier: by hand, slow up and fast down, once a generation, and the same after a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import tiny_policy
import torch
from torch import Tensor, nn

from featherweight.base.errors import UsageError
from featherweight.reasoning.control_state import ControlState
from featherweight.reasoning.governor import Governor
from featherweight.reasoning.loop import train
from featherweight.reasoning.marks import Marks
from featherweight.reasoning.rewards import Sizes
from featherweight.reasoning.short_arc import ShortARC

# No memory, and no warm-up: eta = 1 / (10 * .1) = 1.
PLAIN = Governor(tolerance=0.1, ramp=10, warmup=0, decay=0.0)


def answers(accuracy: float, count: int = 100, bucket: int = 0) -> Marks:
    correct = torch.zeros(count)
    correct[: round(accuracy * count)] = 1
    return Marks(
        correct, torch.ones(count), torch.zeros(count).long(), 9, torch.full((count,), bucket)
    )


def run(
    governor: Governor, accuracies: Sequence[float], state: dict[str, Tensor] | None = None
) -> list[dict[str, float]]:
    """The state of the one bucket after each step."""
    state = state or governor.start(1)
    rows = []
    for accuracy in accuracies:
        state = governor.update(state, answers(accuracy))
        rows.append({name: float(tensor.sum()) for name, tensor in state.items()})
    return rows


def column(rows: list[dict[str, float]], name: str = "pressure") -> Any:
    return pytest.approx([row[name] for row in rows])


def test_by_hand() -> None:
    """tolerance .1, eta 1. Accuracies .8, .8, .9: margin .1 each, pressure .1, .2, .3. Then .85:
    margin .05, .35. Then .78: margin -.02, .33. Then .69 < .9 - .2: closed. .75: still closed. .8:
    margin 0, open at 0. .9: .1.
    """
    rows = run(PLAIN, [0.8, 0.8, 0.9, 0.85, 0.78, 0.69, 0.75, 0.8, 0.9])
    assert column(rows) == [0.1, 0.2, 0.3, 0.35, 0.33, 0, 0, 0, 0.1]
    assert column(rows, "is_closed") == [0, 0, 0, 0, 0, 1, 1, 0, 0]
    assert column(rows, "reference") == [0.8, 0.8, *[0.9] * 7]


def test_smoothing() -> None:
    """decay .9: .8, then .9 .8 + .1 .5 = .77, then .9 .77 + .1 1 = .793."""
    rows = run(replace(PLAIN, decay=0.9), [0.8, 0.5, 1.0])
    assert column(rows, "accuracy") == [0.8, 0.77, 0.793]
    # Margins .1, .07 and .093.
    assert column(rows) == [0.1, 0.17, 0.263]


def test_governor_dynamics() -> None:
    """A rise is at most strongest / ramp a step; a fall follows the loss."""
    governor = replace(PLAIN, strongest=0.5, ramp=25, tolerance=0.02)
    up = [row["pressure"] for row in run(governor, [0.8] * 40)]
    assert up[:25] == pytest.approx([0.02 * (i + 1) for i in range(25)])
    assert up[-1] == 0.5
    state = {
        "pressure": torch.tensor([0.5], dtype=torch.float64),
        "accuracy": torch.tensor([0.8], dtype=torch.float64),
        "reference": torch.tensor([0.8], dtype=torch.float64),
        "is_closed": torch.tensor([False]),
        "steps": torch.tensor(40),
    }
    # Exactly 2 tolerances below: eta (-.02) = -.02 a step, as fast as it rose. Below: 0 at once.
    assert run(governor, [0.77], state)[0]["pressure"] == pytest.approx(0.49)
    assert run(governor, [0.75], state)[0]["pressure"] == 0
    assert run(governor, [0.75], state)[0]["is_closed"] == 1


def test_warm_up() -> None:
    """Pressure is 0 in the first 3 steps: the states that they begin with have taken 0 to 2."""
    rows = run(replace(PLAIN, warmup=3), [0.8] * 4)
    assert column(rows) == [0, 0, 0.1, 0.2]


def test_a_lucky_first_step_is_no_reference() -> None:
    """All of the first answers are right, and then four in five: after the warm-up the pressure
    rises all the same. Accuracy is .8 + .2 .9^19 = .827 at its end, and falls by less than the
    tolerance.
    """
    rows = run(Governor(warmup=20, tolerance=0.03, ramp=10), [1.0] + [0.8] * 60)
    assert rows[18]["pressure"] == 0 and rows[19]["pressure"] > 0
    assert rows[-1]["reference"] == pytest.approx(0.8 + 0.2 * 0.9**18)
    assert not any(row["is_closed"] for row in rows)
    assert rows[-1]["pressure"] > 0


def test_buckets_are_apart() -> None:
    governor, state = PLAIN, PLAIN.start(3)
    state = governor.update(state, answers(0.8, bucket=2))
    state = governor.update(state, answers(0.5, bucket=1))
    assert state["pressure"].tolist() == pytest.approx([0, 0.1, 0.1])
    assert state["accuracy"].isnan().tolist() == [True, False, False]
    texts = Marks(torch.ones(2), torch.ones(2), torch.arange(2), 9, torch.tensor([2, 0]))
    assert governor.pressure(state, texts).tolist() == pytest.approx([0.1, 0])


def test_answers_without_a_mark_do_not_count() -> None:
    one = answers(0.5, count=4)
    spoiled = replace(one, correct=torch.tensor([1.0, torch.nan, torch.nan, torch.nan]))
    assert PLAIN.update(PLAIN.start(1), spoiled)["accuracy"].tolist() == [1.0]
    none = replace(one, correct=torch.full((4,), torch.nan))
    state = PLAIN.update(PLAIN.start(1), none)
    assert state["accuracy"].isnan().all() and not state["pressure"].any()


def test_once_a_generation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two updates learn from one generation; the governor sees it once."""
    model, counts = tiny_policy.policy(), []
    update = Governor.update

    def count(self: Governor, state: Any, marks: Marks) -> dict[str, Tensor]:
        counts.append(len(marks))
        return update(self, state, marks)

    monkeypatch.setattr(Governor, "update", count)
    for step in train(
        model,
        tiny_policy.questions(),
        tiny_policy.sampler(model),
        tiny_policy.marking(),
        ShortARC(governor=Governor(warmup=0)),
        tiny_policy.method(),
        replace(tiny_policy.RECIPE, updates=2),
    ):
        assert len(counts) == (step.step.number + 1) // 2
    # Four prompts and four answers in each of two micro-batches.
    assert counts == [32, 32]


def test_governor_resume() -> None:
    """The state is in the buffers, and a copy goes on with the same bits."""
    control = ShortARC(governor=replace(PLAIN, decay=0.7))
    first, second = (ControlState(control, Sizes(1, 2)) for _ in range(2))
    for accuracy in (0.8, 0.83, 0.71):
        first.take(answers(accuracy))
    assert isinstance(first, nn.Module)
    second.load_state_dict(first.state_dict())
    for accuracy in (0.8, 0.6):
        left, right = (one.take(answers(accuracy)) for one in (first, second))
        assert torch.equal(left.numbers, right.numbers)
        assert left.facts == right.facts
    for name, tensor in first.tensors().items():
        assert torch.equal(tensor.nan_to_num(-1), second.tensors()[name].nan_to_num(-1))


def test_settings_that_cannot_work() -> None:
    for settings in ({"tolerance": 0.0}, {"decay": 1.0}, {"ramp": 0}, {"warmup": -1}):
        with pytest.raises(UsageError, match="|".join(settings)):
            Governor(**settings)
