"""An inference engine writes, from weights that were rounded for it: a behaviour policy."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import ClassVar

from torch import nn

from ...base.errors import UsageError
from ...base.sampling import Sampling
from ...inference.engine import Engine
from ...inference.rollouts import engine_rollouts
from ...models.sampling import BATCH_SIZE, Rollouts
from ...models.text_rows import Ids
from .base import Sampler
from .local import check_ends


class EngineSampler(Sampler):
    """`inference.rollouts` of an engine that `open_engine(model)` makes anew at every update.

    open_engine: rounds the weights of the policy (`workflows.policy_engine.int8_engine`: to
    `Int(8)`, for the native engine) and opens them. The texts are drawn from the rounded policy,
    whose log-probabilities they carry. end_ids, batch_size: as in `LocalSampler`.
    """

    is_policy: ClassVar[bool] = False

    def __init__(
        self,
        open_engine: Callable[[nn.Module], Engine],
        end_ids: Collection[int],
        batch_size: int = BATCH_SIZE,
    ) -> None:
        self.open_engine, self.batch_size = open_engine, batch_size
        self.end_ids = check_ends(end_ids)
        self._engine: Engine | None = None

    def generate(
        self, prompts: Sequence[Ids], samples: int, sampling: Sampling, seed: int
    ) -> Rollouts:
        if self._engine is None:
            raise UsageError("this sampler has no weights yet; call update_weights(model) first")
        return engine_rollouts(
            self._engine,
            prompts,
            samples,
            sampling,
            seed,
            end_ids=self.end_ids,
            batch_size=self.batch_size,
        )

    def update_weights(self, model: nn.Module) -> None:
        self.close()
        self._engine = self.open_engine(model)

    def close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None
