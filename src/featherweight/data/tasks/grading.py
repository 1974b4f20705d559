"""Grades answers in a process of its own, so that a grader which fails or never ends costs one
answer and not the evaluation.

Such an answer is *ungraded*: it has no score, and counts neither as right nor as wrong. A regular
expression that backtracks for ever cannot be interrupted from another thread, therefore the
process. It is forked once and answers all questions; after a timeout it is killed and forked anew.
Where processes cannot be forked (Windows) it is started, which needs tasks that can be pickled.
"""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import os
import signal
import warnings
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from .base import Task, TaskExample

EXIT_SECONDS = 1.0  # for the process to end by itself
ALARM_SECONDS = 5.0  # after which a grader that lost its caller ends


@dataclass(frozen=True)
class Grade:
    """score: from 0 to 1, None for an ungraded answer; reason: why it is ungraded."""

    score: float | None
    reason: str = ""


class Grader:
    """Grades the answers of one task; a context manager that ends the process."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._process: Any = None
        self._pipe: Connection | None = None

    def __call__(self, example: TaskExample, answer: str) -> Grade:
        """The grade of `answer`, within the task's `grade_seconds`."""
        pipe = self._pipe or self._start()
        try:
            pipe.send((dict(example), answer))
            if not pipe.poll(self.task.grade_seconds):
                self.close()
                return Grade(None, f"the grader took more than {self.task.grade_seconds:g} seconds")
            grade: Grade = pipe.recv()
        except (EOFError, OSError):
            self.close()
            return Grade(None, "the grader's process ended")
        return grade

    def close(self) -> None:
        """End the process, and whatever it started."""
        if self._process is None:
            return
        if self._pipe is not None:
            self._pipe.close()
        self._process.join(0 if self._process.is_alive() else EXIT_SECONDS)
        if self._process.is_alive() and os.name == "posix":
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._process = self._pipe = None

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _start(self) -> Connection:
        is_forked = "fork" in multiprocessing.get_all_start_methods()
        context: Any = multiprocessing.get_context("fork" if is_forked else "spawn")
        self._pipe, end = context.Pipe()
        # A forked process has a copy of our end too, which it must close to notice our death.
        arguments = (self.task, end, self._pipe if is_forked else None)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        with warnings.catch_warnings():
            # Newer Pythons warn of forks while threads run. The new process runs only the grader.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        end.close()
        return self._pipe


def _serve(task: Task, pipe: Connection, other_end: Connection | None) -> None:
    """Grade what comes through `pipe` until it is closed, or its other end is."""
    has_alarm = os.name == "posix"
    if other_end is not None:
        other_end.close()
    if has_alarm:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with contextlib.suppress(EOFError, OSError):
        while True:
            example, answer = pipe.recv()
            if has_alarm:
                # The system ends this process when nobody is left to do so.
                signal.alarm(math.ceil(task.grade_seconds + ALARM_SECONDS))
            pipe.send(grade_once(task, example, answer))
            if has_alarm:
                signal.alarm(0)


def grade_once(task: Task, example: TaskExample, answer: str) -> Grade:
    """The grade of `answer`; an error of the grader, or a score outside 0 to 1, leaves it
    ungraded.
    """
    try:
        score = task.grade(example, answer)
    except Exception as error:  # a grader may be anyone's code
        return Grade(None, f"the grader failed: {type(error).__name__}: {error}"[:200])
    if score is None:
        return Grade(None, "the task cannot say")
    if not isinstance(score, (int, float)) or not math.isfinite(score) or not 0 <= score <= 1:
        return Grade(None, f"the grader gave {score!r}, not a number from 0 to 1"[:200])
    return Grade(float(score))
