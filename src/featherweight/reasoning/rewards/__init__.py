"""Reward rules: how much an answer is worth, by its correctness and its length (one idea a file).

Each is a published baseline with its published constants, faults included; `Rule.is_safe` says
whether it may pay a wrong answer more than a right one. `gfpo` (a filter) and `drpo` (an advantage)
are no rewards and have functions of their own. Texts of rules are read with `base.spec`:
`parse("alp(beta=1e-6)", BY_NAME)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from .a_dlp import ADLP
from .aalc import AALC
from .alp import ALP
from .base import Rule, Sizes, State, rewards
from .cosine import Cosine
from .dapo import DAPOOverlong
from .dast import DAST
from .dler import DADLER, DLER
from .hapo import HAPO
from .jet import JET
from .kimi import Kimi
from .l1 import L1Exact, L1Max
from .laser import Laser
from .laser_d import LaserD, LaserDE
from .linear import Accuracy, Linear
from .o1_pruner import O1Pruner
from .prime_rl import PrimeRL
from .s_grpo import SGRPO
from .short_rl import ShortRL
from .shorterbetter import ShorterBetter
from .thinkprune import ThinkPrune
from .tlmre import TLMRE

__all__ = [
    "AALC",
    "ADLP",
    "ALP",
    "DADLER",
    "DAST",
    "DLER",
    "HAPO",
    "JET",
    "SGRPO",
    "TLMRE",
    "Accuracy",
    "Cosine",
    "DAPOOverlong",
    "Kimi",
    "L1Exact",
    "L1Max",
    "Laser",
    "LaserD",
    "LaserDE",
    "Linear",
    "O1Pruner",
    "PrimeRL",
    "ShortRL",
    "ShorterBetter",
    "ThinkPrune",
]
PUBLIC_BASE = (Rule, Sizes, State)
PUBLIC_FUNCTIONS = (rewards,)
# The name of a rule in the shell -> its class.
BY_NAME: Mapping[str, type[Rule]] = MappingProxyType(
    {globals()[name].name: globals()[name] for name in __all__}
)
