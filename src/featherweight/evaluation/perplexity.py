"""Perplexity: exp of the mean loss per token, with an interval from the means of the windows.

It says how well a model predicts a text, not how far it is from another model: a compressed model
may gain on one token what it loses on another. So KL (`kl.py`) measures the damage more precisely;
perplexity is reported because readers know it.

The protocol: windows of L tokens with L targets, no overlap, and every position counts. Where the
tokenizer begins every text with a BOS, as Gemma's and Llama 3's do, each window starts with it: a
model that was trained so predicts nothing well without it. Published figures differ in all these
points, so `text` in results.json records them. All
windows have the same length, so the mean over all tokens equals the mean over windows. When an
original ran on the same windows, its perplexity is reported as well, and the *paired* ratio light /
original. The interval of the ratio is much narrower than those of the perplexities, because a
window that is difficult for one model is difficult for the other, too.
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
    """The perplexity over `windows`.

    windows: token ids (count, length + 1), as `data.windows` returns them; others raise UsageError.
    text: the name of the text in the report. bos: whether each window starts with a BOS, for the
    report; None where the caller does not say it.
    """

    windows: Int[Tensor, "count positions"]
    text: str = "text"
    bos: bool | None = None

    def __post_init__(self) -> None:
        check_windows(self.windows)

    @property
    def original(self) -> None:
        """None, because perplexity needs no other model. When the original runs for a KL metric on
        the same windows, its perplexity is reported as well.
        """
        return None

    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """`light.perplexity`, and, when an original ran, `original.perplexity` and the paired
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
