"""Mixes of calibration corpora. `SHIPPED_MIX` is the default; the others are the alternatives with
which it was compared.

A mix is an ordered mapping from the name of a corpus to its share; shares need not sum to 1.
`benchmarks/calibration.py` compares the mixes on held-out text of several kinds; `docs/log.md` has
the figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ..base import spec
from ..base.errors import UsageError

Mix = Mapping[str, float]


def _mix(**shares: float) -> Mix:
    return MappingProxyType(dict(shares))


NOVELS = _mix(novels=1.0)
WIKIPEDIA = _mix(wikipedia=1.0)
CODE_MATH = _mix(code=0.5, math=0.5)
CHAT = _mix(tasks_chat=0.3, instructions_chat=0.3, math_chat=0.2, code_chat=0.2)
PROSE = _mix(novels=0.4, wikipedia=0.5, plays=0.1)
CHATTY = _mix(
    wikipedia=0.2,
    novels=0.1,
    tasks_chat=0.15,
    math_chat=0.15,
    code_chat=0.15,
    instructions_chat=0.15,
    code=0.1,
)
SHIPPED_MIX = _mix(
    wikipedia=0.3,
    novels=0.2,
    code=0.1,
    math=0.1,
    competition=0.1,
    tasks_chat=0.06,
    instructions_chat=0.04,
    code_chat=0.05,
    math_chat=0.05,
)

MIXES: Mapping[str, Mix] = MappingProxyType(
    {
        "shipped": SHIPPED_MIX,
        "novels": NOVELS,
        "wikipedia": WIKIPEDIA,
        "code_math": CODE_MATH,
        "chat": CHAT,
        "prose": PROSE,
        "chatty": CHATTY,
    }
)


def mix(name: str) -> Mix:
    """The mix that the shell and recipes call `name`. Raises UsageError, with the nearest name,
    when there is none.
    """
    if name not in MIXES:
        raise UsageError(f"no calibration mix is called {name!r}; {spec.nearest(name, MIXES)}")
    return MIXES[name]
