"""Figures for Prometheus: requests by status, tokens, who waits and runs, and how long tokens take.

Each server has a registry of its own, so two in one process do not share figures. Labels take a few
known values only, whatever clients send.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .hosted import Models

PREFIX = "featherweight"
FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BETWEEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The registry and what the server counts."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, models: Models, routes: frozenset[str]) -> None:
        self._routes = routes
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_requests", "Requests by route and status; 499: the client left", ["route", "status"],
            registry=self._registry,
        )  # fmt: skip
        self.prompt_tokens = Counter(
            f"{PREFIX}_prompt_tokens", "Tokens of prompts", ["model"], registry=self._registry
        )
        self.reused_tokens = Counter(
            f"{PREFIX}_reused_prompt_tokens", "Tokens of prompts that an earlier request had left in the cache",
            ["model"], registry=self._registry,
        )  # fmt: skip
        self.completion_tokens = Counter(
            f"{PREFIX}_completion_tokens", "Tokens made", ["model"], registry=self._registry
        )
        self.first_token = Histogram(
            f"{PREFIX}_time_to_first_token_seconds", "From the request to its first token, waiting included", ["model"],
            buckets=FIRST, registry=self._registry,
        )  # fmt: skip
        self.between_tokens = Histogram(
            f"{PREFIX}_inter_token_seconds", "Between two tokens of one answer", ["model"],
            buckets=BETWEEN, registry=self._registry,
        )  # fmt: skip
        waiting = Gauge(
            f"{PREFIX}_requests_waiting",
            "Requests in the queue",
            ["model"],
            registry=self._registry,
        )
        running = Gauge(
            f"{PREFIX}_requests_running",
            "Requests that have a slot",
            ["model"],
            registry=self._registry,
        )
        for model in models:
            waiting.labels(model.name).set_function(partial(getattr, model.batcher, "waiting"))
            running.labels(model.name).set_function(partial(getattr, model.batcher, "running"))

    def count(self, route: str, status: int) -> None:
        """One request more."""
        self._requests.labels(route if route in self._routes else "other", str(status)).inc()

    def text(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._registry)
