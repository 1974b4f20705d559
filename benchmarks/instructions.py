"""Instructions that a call executes, counted one by one: virtual machines seldom offer the
processor's own counters.

A forked child stops, is single-stepped through the call by its parent (Linux, ptrace, no privilege
needed) and stops again. Microseconds a step, so a million instructions take some seconds. The
interpreter around the call is counted too: take the difference of two calls that differ in what is
asked about only.
"""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable

TRACE_ME, SINGLE_STEP, KILL = 0, 9, 8


def count(call: Callable[[], object]) -> int | None:
    """Instructions of `call` in a child process, with the interpreter's around it; None where it
    cannot be traced.
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
