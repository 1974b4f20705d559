"""A window of text is read once by each model, and everything that metrics ask is scored from those
logits together.

For each of the L positions of a window (L tokens in, their L successors as targets; the first token
is context only):

    loss  = -log q(target)                      of the model under test, in nats
    kl    = sum_v p(v) (log p(v) - log q(v))    p the original, q the model under test, in nats
    agree = argmax p == argmax q                greedy decoding would take the same token

Both log-softmaxes are taken in float32 from whatever dtype the logits have (at 4 bits the KL is
near 0.01 and would drown in bf16 noise), `POSITIONS` rows at a time so that the temporaries stay in
the cache: at a vocabulary of 49,152 they are a few megabytes beside the 200 MB that the logits of
1,024 positions take. Sums over tokens are float64. A model scored against its own logits reads
exactly 0: both sides go through the same instructions, no case is special.

A metric is a window set, perhaps an original, and a few lines that turn scores into entries of
`results.json`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int
from torch import Tensor, nn

from ..base.errors import BadInput, UsageError

POSITIONS = 16


# What evaluation needs of a model: `model(tokens (1, L), use_cache=False).logits` is (1, L,
# vocabulary).
CausalModel = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Scores:
    """Per-token numbers of every window, in nats; the three that need an original are None without
    one.
    """

    loss: Float64[np.ndarray, "windows length"]
    original_loss: Float64[np.ndarray, "windows length"] | None = None
    kl: Float64[np.ndarray, "windows length"] | None = None
    agree: Bool[np.ndarray, "windows length"] | None = None

    @staticmethod
    def stack(rows: list[Scores]) -> Scores:
        """One `Scores` of all windows from one of each."""
        columns: dict[str, Any] = {}
        for name in Scores.__dataclass_fields__:
            parts = [getattr(row, name) for row in rows]
            columns[name] = None if parts[0] is None else np.concatenate(parts)
        return Scores(**columns)


class Metric(ABC):
    """One question about a model over windows of a text.

    Metrics over the same windows share the forwards.
    """

    windows: Int[Tensor, "count positions"]
    text: str

    @property
    @abstractmethod
    def original(self) -> CausalModel | None:
        """The model to compare with, or None when the question is about one model only."""

    @abstractmethod
    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """What the metric adds to `quality` in results.json: plain numbers, lists and dicts."""


def check_windows(windows: Tensor) -> None:
    """Raise UsageError unless `windows` is (count >= 1, length + 1 >= 2) of integers, as
    `data.windows` makes them.
    """
    if (
        windows.ndim != 2
        or windows.shape[0] < 1
        or windows.shape[1] < 2
        or windows.is_floating_point()
    ):
        raise UsageError(
            f"windows must be integers of shape (count, length + 1), as data.windows makes them; "
            f"got {windows.dtype} {tuple(windows.shape)}"
        )


def logits(
    model: CausalModel, window: Int[Tensor, " positions"]
) -> Float[Tensor, "length vocabulary"]:
    """Logits at the L positions of one window of L + 1 tokens, on the model's device and in its own
    dtype.
    """
    device = next(model.parameters()).device if isinstance(model, nn.Module) else window.device
    return model(window[None, :-1].to(device), use_cache=False).logits[0]


def score(
    light: Float[Tensor, "length vocabulary"],
    targets: Int[Tensor, " length"],
    original: Float[Tensor, "length original_vocabulary"] | None = None,
) -> Scores:
    """Score one window; the arrays have one row. Raises UsageError when the vocabularies differ.

    Nothing of the logits' size is copied: rows are cast, normalised and reduced `POSITIONS` at a
    time.
    """
    if original is not None and original.shape != light.shape:
        raise UsageError(
            f"the original's logits are {tuple(original.shape)}, "
            f"the light model's {tuple(light.shape)}"
        )
    pieces = []
    for start in range(0, len(targets), POSITIONS):
        rows = slice(start, start + POSITIONS)
        target_ids = targets[rows, None].to(light.device)
        log_q = torch.log_softmax(light[rows].float(), -1)
        columns = [-log_q.gather(1, target_ids)[:, 0].double()]
        if original is not None:
            reference = original[rows].to(light.device)
            log_p = torch.log_softmax(reference.float(), -1)
            columns += [
                -log_p.gather(1, target_ids)[:, 0].double(),
                divergence(log_p, log_q).double(),
                (reference.argmax(-1) == light[rows].argmax(-1)).double(),
            ]
        pieces.append(torch.stack(columns).cpu())
    table = torch.cat(pieces, 1).numpy()[:, None, :]
    if original is None:
        return Scores(table[0])
    return Scores(table[0], table[1], table[2], table[3].astype(bool))


def divergence(
    log_p: Float[Tensor, "rows vocabulary"], log_q: Float[Tensor, "rows vocabulary"]
) -> Float[Tensor, " rows"]:
    """KL(p || q) in nats of each row of log-probabilities.

    Overwrites `log_q`, whose memory it reuses.
    """
    difference = torch.sub(log_p, log_q, out=log_q)
    return difference.mul_(log_p.exp()).sum(-1)


def check_finite(scores: Scores, model: str, text: str, window: int) -> None:
    """Raise BadInput naming the window when a model answered NaN or infinity there."""
    for name in ("loss", "original_loss", "kl"):
        values = getattr(scores, name)
        if values is not None and not np.isfinite(values).all():
            model_name = "the original" if name == "original_loss" else model
            first = int(np.argmin(np.isfinite(values[0])))
            raise BadInput(
                f"{model_name} gives non-finite numbers in window {window} of {text}, "
                f"first at token {first}"
            )


@contextmanager
def reading(*models: object) -> Iterator[None]:
    """No gradients and evaluation mode for every model inside; each module's own mode is put back
    after.
    """
    # no_grad rather than inference_mode: a module may keep a tensor made here (rotary tables) and
    # train with it later.
    modes = [
        (module, module.training)
        for m in models
        if isinstance(m, nn.Module)
        for module in m.modules()
    ]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
