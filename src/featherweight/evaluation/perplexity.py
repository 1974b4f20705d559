"""Perplexity: exp of the mean loss per token, with the interval of the mean over windows.

It says how well a model predicts a text, not how far it moved from another model: a compressed
model may gain on one token what it loses on another, so KL (`kl.py`) is the sharper measure of
damage and this one the familiar figure.

The protocol is windows of L tokens with L targets, no overlap, no BOS, every position counted.
Published figures differ in all of these, so `text` in results.json records them. The mean over all
tokens equals the mean over windows because windows have one length. When an original ran over the
same windows, both perplexities are reported and the *paired* ratio light / original, whose interval
is much narrower than theirs: a hard window is hard for both.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Int
from torch import Tensor

from ..base.statistics import bootstrap_mean, paired_difference
from .base import Metric, Scores, check_windows


@dataclass(frozen=True, eq=False)
class Perplexity(Metric):
    """Perplexity over `windows` (count, length + 1); `text` is the name that the report prints."""

    windows: Int[Tensor, "count positions"]
    text: str = "text"

    def __post_init__(self) -> None:
        check_windows(self.windows)

    @property
    def original(self) -> None:
        """Perplexity needs no other model; one that is read anyway for a KL is reported too."""
        return None

    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """`light.perplexity`, and beside an original `original.perplexity` and the paired
        `perplexity_ratio`.
        """
        loss = scores.loss.mean(1)
        entries_of_text: dict[str, Any] = {
            "light": {"perplexity": bootstrap_mean(loss).map(math.exp).as_dict()}
        }
        if scores.original_loss is not None:
            original_loss = scores.original_loss.mean(1)
            entries_of_text["original"] = {
                "perplexity": bootstrap_mean(original_loss).map(math.exp).as_dict()
            }
            entries_of_text["perplexity_ratio"] = (
                paired_difference(loss, original_loss).map(math.exp).as_dict()
            )
        return entries_of_text
