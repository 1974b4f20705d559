"""Stop thinking when the answer is certain, without any training: DEER (arXiv:2504.15895).

Wherever the model is about to start another thought (it wants to write "Wait", say), it is asked
for its answer at once, on a fork of the session. When the geometric mean of the probabilities of
that trial answer is high enough, it is the answer; otherwise the fork is forgotten and the model
thinks on. The paper: .95, and 19 to 80 % fewer tokens.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..base.errors import UsageError
from ..inference.engine import Engine, Session

Ids = Sequence[int]


@dataclass(frozen=True)
class EarlyExit:
    """markers: the first tokens of words that start another thought. think_end: what ends the
    thought and asks for the answer. end_ids: end an answer. threshold: geometric mean of the
    probabilities of a trial answer, from 0 to 1. max_tokens, trial_tokens: the longest text and
    trial answer. skip: thoughts before the first trial. Raises UsageError for settings that cannot
    work.
    """

    markers: Collection[int]
    think_end: tuple[int, ...]
    end_ids: Collection[int]
    threshold: float = 0.95
    max_tokens: int = 1024
    trial_tokens: int = 32
    skip: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise UsageError(f"threshold={self.threshold}: a probability above 0, at most 1")
        if not self.markers or not self.think_end or not self.end_ids:
            raise UsageError("markers, think_end and end_ids name at least one token each")
        if min(self.max_tokens, self.trial_tokens) < 1 or self.skip < 0:
            raise UsageError("max_tokens and trial_tokens are at least 1, skip at least 0")


@dataclass(frozen=True)
class EarlyAnswer:
    """ids: of thought and answer, with the end token. has_exited: whether a trial answer was taken.
    confidences: of each trial, in order. trial_cost: tokens that trials took beside `ids`.
    """

    ids: tuple[int, ...]
    has_exited: bool
    confidences: tuple[float, ...]
    trial_cost: int


def answer_early(engine: Engine, prompt: Ids, rule: EarlyExit) -> EarlyAnswer:
    """The greedy answer of `engine` to `prompt`, with trials at every marker until the thought has
    ended. Raises UsageError as the engine does, for a prompt that leaves no room.
    """
    spare = len(rule.think_end) + rule.trial_tokens
    session = engine.session(len(prompt) + rule.max_tokens + spare)
    ids: list[int] = []
    confidences: list[float] = []
    num_markers = trial_cost = 0
    is_thinking = True
    try:
        logits = engine.forward(session, list(prompt))[-1]
        while len(ids) < rule.max_tokens:
            token = int(logits.argmax())
            if is_thinking and token in rule.markers:
                num_markers += 1
                if num_markers > rule.skip:
                    trial, confidence = _try_answer(engine, session, rule)
                    confidences.append(confidence)
                    if confidence >= rule.threshold:
                        answer = (*ids, *rule.think_end, *trial)
                        return EarlyAnswer(answer, True, tuple(confidences), trial_cost)
                    trial_cost += len(rule.think_end) + len(trial)
            ids.append(token)
            if token in rule.end_ids:
                break
            is_thinking &= tuple(ids[-len(rule.think_end) :]) != rule.think_end
            logits = engine.forward(session, [token])[-1]
    finally:
        session.close()
    return EarlyAnswer(tuple(ids), False, tuple(confidences), trial_cost)


def _try_answer(engine: Engine, session: Session, rule: EarlyExit) -> tuple[list[int], float]:
    """A greedy answer from here, and the geometric mean of its tokens' probabilities; 0 for one
    that does not end.
    """
    trial = session.fork()
    try:
        ids: list[int] = []
        total = 0.0
        logits = engine.forward(trial, list(rule.think_end))[-1]
        while len(ids) < rule.trial_tokens:
            token = int(logits.argmax())
            total += _log_p(logits, token)
            ids.append(token)
            if token in rule.end_ids:
                return ids, math.exp(total / len(ids))
            logits = engine.forward(trial, [token])[-1]
        return ids, 0.0
    finally:
        trial.close()


def _log_p(logits: NDArray[np.float32], token: int) -> float:
    """log softmax at one token."""
    numbers = logits.astype(np.float64)
    largest = numbers.max()
    return float(numbers[token] - largest - np.log(np.exp(numbers - largest).sum()))
