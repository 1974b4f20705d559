"""Early exit on an engine whose next token depends on the last one only, so that everything can be
computed by hand.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from featherweight.base.errors import UsageError
from featherweight.inference.engine import Engine, Session
from featherweight.reasoning.early_exit import EarlyExit, answer_early

END, STEP, WAIT, THINK_END, ANSWER = range(5)
# After a token: the next one and its probability; "Wait" follows every step but the third.
AFTER_THINK_END, AFTER_ANSWER = 0.9, 0.99
RULE = EarlyExit({WAIT}, (THINK_END,), {END}, threshold=0.94)
CERTAIN = math.sqrt(AFTER_THINK_END * AFTER_ANSWER)


class Chain(Engine):
    """step wait step wait step </think> answer end."""

    vocab_size, context, max_batch = 5, None, 1
    description, fingerprint = "chain", "chain"

    def session(self, capacity: int | None = None) -> Session:
        return Text(capacity or 0)

    def forward(self, session: Any, tokens: Any, logits: Any = "last") -> Any:
        session.ids += list(tokens)
        token, p = self.next_token(session.ids)
        row = np.full(5, math.log((1 - p) / 4), dtype=np.float32)
        row[token] = math.log(p)
        return row[None]

    def next_token(self, ids: list[int]) -> tuple[int, float]:
        if ids[-1] == THINK_END:
            return ANSWER, AFTER_THINK_END
        if ids[-1] == ANSWER:
            return END, AFTER_ANSWER
        if ids[-1] == STEP:
            return (WAIT if ids.count(STEP) < 4 else THINK_END), 0.8
        return STEP, 0.8

    def step(self, sessions: Sequence[Session], tokens: Sequence[int]) -> Any:
        raise NotImplementedError

    def close(self) -> None: ...


class Text(Session):
    def __init__(self, capacity: int, ids: Sequence[int] = ()) -> None:
        self.capacity, self.ids, self.is_open = capacity, list(ids), True

    def fork(self) -> Session:
        return Text(self.capacity, self.ids)

    def rewind(self, length: int) -> None: ...
    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: dict[str, Any], length: int) -> None: ...
    def close(self) -> None: ...


def test_a_certain_answer_ends_the_thought() -> None:
    """sqrt(.9 x .99) = .9439 is above .94 at the first marker; the prompt is one step."""
    answer = answer_early(Chain(), [STEP], RULE)
    assert answer.ids == (THINK_END, ANSWER, END)
    assert answer.has_exited and answer.confidences == pytest.approx((CERTAIN,))
    assert answer.trial_cost == 0


def test_an_uncertain_one_does_not() -> None:
    answer = answer_early(Chain(), [STEP], replace(RULE, threshold=0.95))
    assert answer.ids == (WAIT, STEP, WAIT, STEP, WAIT, STEP, THINK_END, ANSWER, END)
    assert not answer.has_exited and answer.confidences == pytest.approx((CERTAIN,) * 3)
    assert answer.trial_cost == 3 * 3


def test_the_first_thoughts_may_be_left_alone() -> None:
    answer = answer_early(Chain(), [STEP], replace(RULE, skip=2))
    assert answer.ids == (WAIT, STEP, WAIT, STEP, THINK_END, ANSWER, END)


def test_a_trial_that_does_not_end_is_not_certain() -> None:
    answer = answer_early(Chain(), [STEP], replace(RULE, trial_tokens=1))
    assert set(answer.confidences) == {0.0} and not answer.has_exited


def test_the_limit_holds() -> None:
    answer = answer_early(Chain(), [STEP], replace(RULE, threshold=1.0, max_tokens=2))
    assert answer.ids == (WAIT, STEP)


@pytest.mark.parametrize(
    "changes", [{"threshold": 0.0}, {"markers": ()}, {"think_end": ()}, {"max_tokens": 0}]
)
def test_settings(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        replace(RULE, **changes)
