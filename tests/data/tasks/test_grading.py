"""Graders that fail or never end leave an answer ungraded, and programs of a model run with
limits.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.data.tasks.rows import make_task

from featherweight.base.errors import UsageError
from featherweight.data import tasks
from featherweight.data.tasks.sandbox import run_program


class Odd(tasks.OpChain):
    """A task whose grader does what the answer says."""

    grade_seconds: ClassVar[float] = 0.5

    def grade(self, example: Any, answer: str) -> Any:
        match answer:
            case "raise":
                raise KeyError("gold")
            case "never ends":
                return re.match(r"(a+)+$", "a" * 60 + "b")
            case "dies":
                os._exit(1)
            case "none":
                return None
            case "nan":
                return float("nan")
            case "two":
                return 2.0
        return 1.0


def test_failing_graders_leave_answers_ungraded() -> None:
    start = time.monotonic()
    with tasks.Grader(Odd()) as grader:
        grades = {
            answer: grader({}, answer)
            for answer in (
                "fine",
                "raise",
                "never ends",
                "dies",
                "none",
                "nan",
                "two",
                "fine again",
            )
        }
    assert time.monotonic() - start < 10
    scores = [grade.score for grade in grades.values()]
    assert scores == [1.0, None, None, None, None, None, None, 1.0]
    for answer, reason in [
        ("raise", "KeyError"),
        ("never ends", "more than 0.5 seconds"),
        ("dies", "process ended"),
        ("none", "cannot say"),
        ("two", "gave 2.0"),
    ]:
        assert reason in grades[answer].reason


KILLED = """
import os, signal
from featherweight.data.tasks import Grader, OpChain
grader, task = Grader(OpChain()), OpChain()
grader(next(task.examples()), "END 1")
print(grader._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(os.name != "posix", reason="no kill")
def test_a_grader_ends_with_its_caller() -> None:
    output = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True).stdout
    for _ in range(50):
        try:
            os.kill(int(output), 0)
        except ProcessLookupError:
            return
        # A process without a parent that waits for it stays in the table as a zombie.
        if "Z" in Path(f"/proc/{int(output)}/stat").read_text().split()[2:3]:
            return
        time.sleep(0.1)
    pytest.fail("the grader's process outlived its caller")


PROGRAMS = {
    "x = 1": True,
    "assert False": False,
    "raise SystemExit(0)": False,
    "import os; os._exit(0)": False,
    "def f(:": False,
    "while True: pass": False,
    "import time; time.sleep(60)": False,
    "x = bytearray(1 << 31)": False,
    "open('large', 'wb').write(bytes(1 << 21))": False,
    "import os; assert not os.listdir('.')[1:]": True,
    "import os; assert 'SECRET' not in os.environ": True,
    "import sys; assert not sys.argv[1:]": True,
}


@pytest.mark.skipif(os.name != "posix", reason="no limits for processes")
@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_run_with_limits(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    start = time.monotonic()
    assert run_program(program, seconds=2.0) is PROGRAMS[program]
    assert time.monotonic() - start < 10


def test_programs_run_only_when_allowed(tmp_path: Path) -> None:
    file = make_task("HumanEval", tmp_path).file  # type: ignore[attr-defined]
    task = tasks.HumanEval(file)
    with pytest.raises(UsageError, match="run_code=True"):
        task.examples()
    with pytest.raises(UsageError, match="run_code=True"):
        task.grade({}, "x = 1")
