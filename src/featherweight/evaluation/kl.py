"""KL(original || light): the divergence, in nats, between the next-token distributions of the
original and of the light model.

It is the mean over all positions of a text. At each position it compares the whole distributions
and not only the probabilities of the target, so far fewer tokens are needed than for perplexity to
distinguish two models. Its distribution over tokens is heavy-tailed: it is small for most tokens
and large for a few. Therefore the median and the 99th and 99.9th percentiles are reported besides
the mean, and the interval of the mean comes from resampled windows. The metric also reports top-1
agreement, the share of positions where greedy decoding chooses the same token.

As a control, the KL of a model with itself is exactly 0.0. To measure the noise floor of another
dtype or kernel, evaluate the same weights in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from ..base.errors import UsageError
from ..base.statistics import bootstrap_mean
from ..models.answers import Answers, Sampled, TopK
from .base import CausalModel, Metric, Scores, check_windows


@dataclass(frozen=True, eq=False)
class KL(Metric):
    """The KL from `teacher`, a model or its `Answers` on disk, over `windows`.

    windows: token ids (count, length + 1), as `data.windows` returns them; others raise UsageError,
    as do drawn answers, from which no KL can be computed. text: the name of the text in the report.
    bos: whether each window starts with a BOS, for the report; None where the caller does not say
    it.
    """

    teacher: CausalModel
    windows: Int[Tensor, "count positions"]
    text: str = "text"
    bos: bool | None = None

    def __post_init__(self) -> None:
        check_windows(self.windows)
        if isinstance(self.teacher, Answers):
            self.teacher.check(None, self.windows, 1.0)
            if isinstance(self.teacher.header.kind, Sampled):
                raise UsageError(
                    f"{self.teacher.folder} holds drawn tokens, which are enough to learn from but "
                    "not to measure with; keep top-k or full answers"
                )

    @property
    def original(self) -> CausalModel:
        """The model to compare with."""
        return self.teacher

    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """`kl`: the mean with its interval, and the median, 99th and 99.9th percentiles of tokens;
        `top1`: the agreement with its interval; `kl_windows`: the mean of each window, for paired
        tests.
        """
        assert scores.kl is not None and scores.agree is not None
        windows = scores.kl.mean(1)
        median, p99, p999 = np.quantile(scores.kl, [0.5, 0.99, 0.999])
        kl: dict[str, Any] = bootstrap_mean(windows).as_dict() | {
            "median": float(median),
            "p99": float(p99),
            "p999": float(p999),
        }
        if isinstance(self.teacher, Answers) and isinstance(self.teacher.header.kind, TopK):
            k = self.teacher.header.kind.k
            kl["of"] = f"the {k} most likely tokens and all others as one: at most the whole KL"
        return {
            "kl": kl,
            "top1": bootstrap_mean(scores.agree.mean(1)).as_dict(),
            "kl_windows": windows.tolist(),
        }
