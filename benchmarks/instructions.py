"""Counts the instructions that a call executes.

Virtual machines seldom offer the counters of the processor. So a child process is forked, which
stops before and after the call, and its parent single-steps it in between (Linux ptrace, which
needs no privilege here). A million instructions take some seconds. The instructions of the
interpreter around the call are counted as well. To remove them, take the difference between two
calls that differ only in the amount of the measured work.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

TRACE_ME, SINGLE_STEP, KILL = 0, 9, 8


def count(call: Callable[[], object]) -> int | None:
    """The number of instructions of `call` in a child process, with those of the interpreter around
    it; None when processes cannot be traced.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "ptrace"):
        return None
    libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
    libc.ptrace.restype = ctypes.c_long
    child = os.fork()
    if child == 0:
        if libc.ptrace(TRACE_ME, 0, None, None) != 0:
            os._exit(1)
        os.kill(os.getpid(), signal.SIGSTOP)
        call()
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    steps = 0
    while os.WIFSTOPPED(status):
        if steps and os.WSTOPSIG(status) == signal.SIGSTOP:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return steps
        if libc.ptrace(SINGLE_STEP, child, None, None) != 0:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        _, status = os.waitpid(child, 0)
        steps += 1
    return None
