"""The models that a server offers: one, and for comparison perhaps the original beside it.

Each has an engine, its text side and a batcher of its own, so that neither waits in the other's
queue.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..inference.batching.batcher import Batcher
from .errors import ApiError


@dataclass(frozen=True)
class HostedModel:
    """A model by the `name` that clients ask for; `facts` are shown on the page (bits, file_bytes,
    role, ...).
    """

    name: str
    batcher: Batcher
    facts: Mapping[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))

    def described(self) -> dict[str, Any]:
        """The entry in /v1/models: OpenAI's four fields and ours."""
        engine = self.batcher.engine
        own = {
            "description": engine.description,
            "context": self.batcher.capacity,
            "slots": self.batcher.slots,
            **self.facts,
        }
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "featherweight",
            "featherweight": own,
        }


class Models:
    """All of them, by name."""

    def __init__(self, models: Iterable[HostedModel]) -> None:
        self._by_name = {model.name: model for model in models}

    def __iter__(self) -> Iterator[HostedModel]:
        return iter(self._by_name.values())

    def find(self, name: str) -> HostedModel:
        """The model of that name. Raises ApiError 404."""
        if name not in self._by_name:
            offered = ", ".join(self._by_name)
            raise ApiError(
                404,
                f"there is no model {name[:100]!r}; this server offers {offered}",
                param="model",
                code="model_not_found",
            )
        return self._by_name[name]
