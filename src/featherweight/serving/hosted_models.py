"""The models that a server offers: one, and for comparison perhaps its original as a second one.

Each has an engine, a tokenizer and a batcher of its own, so that neither waits in the queue of the
other.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..inference.batching.batcher import Batcher
from ..inference.text.tool_calls import CallFormat
from .errors import ApiError

if TYPE_CHECKING:
    from ..inference.text.grammars import Grammars


@dataclass(frozen=True)
class HostedModel:
    """One model of a server.

    name: what clients ask for. batcher: serves its requests. facts: what the page shows of it
    (bits, file_bytes, role, ...). created: Unix time in seconds.
    """

    name: str
    batcher: Batcher
    facts: Mapping[str, Any] = field(default_factory=dict)
    created: int = field(default_factory=lambda: int(time.time()))

    @cached_property
    def grammars(self) -> Grammars:
        """The grammars of its answers. Raises UsageError when the extra is not installed."""
        from ..inference.text.grammars import Grammars

        return Grammars(self.batcher.tokenizer, self.batcher.engine.vocab_size)

    @cached_property
    def call_format(self) -> CallFormat:
        """How it writes calls of functions. Raises UsageError when its template has no tools."""
        return CallFormat.of(self.batcher.tokenizer)

    def entry(self) -> dict[str, Any]:
        """The entry of /v1/models: OpenAI's four fields, and ours under "featherweight"."""
        engine = self.batcher.engine
        return {
            "id": self.name,
            "object": "model",
            "created": self.created,
            "owned_by": "featherweight",
            "featherweight": {
                "description": engine.description,
                "context": self.batcher.capacity,
                "slots": self.batcher.num_slots,
                **self.facts,
            },
        }


class HostedModels:
    """All models of a server by name."""

    def __init__(self, models: Iterable[HostedModel]) -> None:
        self._by_name = {model.name: model for model in models}

    def __iter__(self) -> Iterator[HostedModel]:
        return iter(self._by_name.values())

    def find(self, name: str) -> HostedModel:
        """The model of that name. Raises ApiError 404."""
        if name not in self._by_name:
            names = ", ".join(self._by_name)
            raise ApiError(
                404,
                f"there is no model {name[:100]!r}; this server offers {names}",
                param="model",
                code="model_not_found",
            )
        return self._by_name[name]
