"""`ShortARCTrainer`; importing this module imports TRL."""

from __future__ import annotations

from ....base.errors import UsageError
from .mixin import ShortARCMixin

try:
    from trl import GRPOTrainer
except ImportError as error:
    raise UsageError(
        'ShortARCTrainer needs TRL, which cannot be imported; run: pip install "featherweight[trl]"'
    ) from error


class ShortARCTrainer(ShortARCMixin, GRPOTrainer):
    """`trl.GRPOTrainer` whose advantages a control gives; see `ShortARCMixin` for its arguments."""
