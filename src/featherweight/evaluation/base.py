"""The scores of a window of text, computed for all metrics from one forward pass of each model, and
the abstract base of metrics.

A window has L + 1 tokens: L inputs, and L targets, which are the successors of the inputs. So the
first token is never a target. For each of the L positions:

    loss  = -log q(target)                      of the model under test, in nats
    kl    = sum_v p(v) (log p(v) - log q(v))    p the original, q the model under test, in nats
    agree = argmax p == argmax q                greedy decoding would choose the same token

Both log-softmaxes are computed in float32 for logits of any dtype, because at 4 bits the KL is near
0.01, which is below the noise of bf16. They are computed for `POSITIONS` rows at a time, so that
the temporary tensors fit into the cache: with a vocabulary of 49,152 they take a few megabytes,
while the logits of 1,024 positions take 200 MB. Sums over tokens are float64. The KL of a model
with itself is exactly 0, because the same instructions compute both sides.

A metric has a set of windows, possibly an original, and a method that turns scores into entries of
results.json.
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
from ..models.answers import Answers, FullAnswer, SparseAnswer
from ..models.structure import evaluation_mode
from ..ops.divergence import kl, top_k_kl

POSITIONS = 16


# A model for evaluation is a callable: `model(tokens, use_cache=False).logits` has the shape (1, L,
# vocabulary) for tokens of shape (1, L).
CausalModel = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Scores:
    """The scores of every token of every window.

    loss: of the model under test, in nats. original_loss, kl: in nats. agree: whether both models
    have the same most likely token. The last three are None without an original.
    """

    loss: Float64[np.ndarray, "windows length"]
    original_loss: Float64[np.ndarray, "windows length"] | None = None
    kl: Float64[np.ndarray, "windows length"] | None = None
    agree: Bool[np.ndarray, "windows length"] | None = None

    @staticmethod
    def stack(rows: list[Scores]) -> Scores:
        """Join the scores of single windows to the scores of all windows."""
        columns: dict[str, Any] = {}
        for name in Scores.__dataclass_fields__:
            parts = [getattr(row, name) for row in rows]
            columns[name] = None if parts[0] is None else np.concatenate(parts)
        return Scores(**columns)


class Metric(ABC):
    """Abstract base of the metrics, which measure a model on windows of a text.

    `windows`: token ids (count, length + 1), as `data.windows` returns them. `text`: the name of
    the text in the report. `bos`: whether each window starts with a BOS; None where nobody said it.
    Metrics with equal windows use the same forward passes.
    """

    windows: Int[Tensor, "count positions"]
    text: str
    bos: bool | None

    @property
    @abstractmethod
    def original(self) -> CausalModel | None:
        """The model to compare with; None for a metric that needs only the model under test."""

    @abstractmethod
    def entries(self, scores: Scores) -> Mapping[str, Any]:
        """The entries of the metric for `quality` in results.json, computed from the scores of all
        windows: plain numbers, lists and dicts.
        """


def check_windows(windows: Tensor) -> None:
    """Raise UsageError unless `windows` has integers and the shape (count >= 1, length + 1 >= 2),
    as the result of `data.windows`.
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
    """The logits of `model` at the L positions of one window of L + 1 tokens, on the device and in
    the dtype of the model.
    """
    device = next(model.parameters()).device if isinstance(model, nn.Module) else window.device
    return model(window[None, :-1].to(device), use_cache=False).logits[0]


def answer_of(
    original: CausalModel, window: Int[Tensor, " positions"]
) -> Float[Tensor, "length vocabulary"] | SparseAnswer:
    """What the original says about the L positions of a window: its logits, or what was kept of
    them on disk.
    """
    if not isinstance(original, Answers):
        return logits(original, window)
    answer = original.find(window[:-1])
    return answer.logits if isinstance(answer, FullAnswer) else answer


def score(
    light: Float[Tensor, "length vocabulary"],
    targets: Int[Tensor, " length"],
    original: Float[Tensor, "length original_vocabulary"] | SparseAnswer | None = None,
) -> Scores:
    """The scores of one window, as arrays with one row.

    light, original: the logits of the model under test and of the original (None without one).
    targets: the ids of the L target tokens. Raises UsageError when the vocabularies differ. The
    logits are never copied as a whole: `POSITIONS` rows at a time are cast, normalised and reduced.
    With a sparse answer, `kl` is that between its tokens and the mass of all others: at most the KL
    of the whole distributions.
    """
    if isinstance(original, Tensor) and original.shape != light.shape:
        raise UsageError(
            f"the original's logits are {tuple(original.shape)}, "
            f"the light model's {tuple(light.shape)}"
        )
    pieces = []
    for start in range(0, len(targets), POSITIONS):
        rows = slice(start, start + POSITIONS)
        part, target_ids = light[rows], targets[rows, None].to(light.device)
        log_q = torch.log_softmax(part.float(), -1)
        columns = [-log_q.gather(1, target_ids)[:, 0]]
        if isinstance(original, SparseAnswer):
            columns += _compare_sparse(part, original, rows)
        elif original is not None:
            columns += _compare(log_q, part, original[rows].to(light.device), target_ids)
        pieces.append(torch.stack([column.double() for column in columns]).cpu())
    table = torch.cat(pieces, 1).numpy()[:, None, :]
    if original is None:
        return Scores(table[0])
    return Scores(table[0], table[1], table[2], table[3].astype(bool))


def _compare(log_q: Tensor, light: Tensor, original: Tensor, target_ids: Tensor) -> list[Tensor]:
    """The original's loss, the KL and the agreement of some rows of logits."""
    log_p = torch.log_softmax(original.float(), -1)
    return [
        -log_p.gather(1, target_ids)[:, 0],
        kl(log_p, log_q),
        original.argmax(-1) == light.argmax(-1),
    ]


def _compare_sparse(light: Tensor, original: SparseAnswer, rows: slice) -> list[Tensor]:
    """The same from what was kept of the original's rows."""
    ids, log_p, log_tail, log_target = (
        tensor[rows].to(light.device)
        for tensor in (original.ids, original.log_p, original.log_tail, original.log_target)
    )
    return [
        -log_target,
        top_k_kl(light.float(), ids, log_p, log_tail),
        ids[:, 0] == light.argmax(-1),
    ]


def check_finite(scores: Scores, model: str, text: str, window: int) -> None:
    """Raise BadInput, which names the window and the token, when a score is NaN or infinite."""
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
    """Inside this context all models are in evaluation mode and no gradients are computed.
    Afterwards each module has its previous mode.
    """
    # This uses no_grad and not inference_mode, because a module may keep a tensor that was created
    # here (rotary tables) and be trained with it later.
    with evaluation_mode(*(m for m in models if isinstance(m, nn.Module))), torch.no_grad():
        yield
