"""Figures for Prometheus: requests by status, tokens, the queue and the running requests, and how
long tokens take.

Each server has a registry of its own, so two servers in one process do not share figures. Labels
have a few known values only, whatever clients send.
"""

from __future__ import annotations

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from .hosted_models import HostedModels

PREFIX = "featherweight"
# Upper ends of the histograms' buckets, in seconds.
FIRST_TOKEN_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
INTER_TOKEN_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Metrics:
    """The registry of a server, with its counters and histograms.

    `routes` are the paths that are counted under their own name.
    """

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self, models: HostedModels, routes: frozenset[str]) -> None:
        self._routes = routes
        self._registry = CollectorRegistry()
        self._requests = Counter(
            f"{PREFIX}_requests",
            "Requests by route and status; 499: the client left",
            ["route", "status"],
            registry=self._registry,
        )
        self.prompt_tokens = self._token_counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = self._token_counter(
            "reused_prompt_tokens",
            "Tokens of prompts that an earlier request had left in the cache",
        )
        self.completion_tokens = self._token_counter("completion_tokens", "Tokens made")
        self.first_token = Histogram(
            f"{PREFIX}_time_to_first_token_seconds",
            "From the request to its first token, waiting included",
            ["model"],
            buckets=FIRST_TOKEN_BUCKETS,
            registry=self._registry,
        )
        self.inter_token = Histogram(
            f"{PREFIX}_inter_token_seconds",
            "Between two tokens of one answer",
            ["model"],
            buckets=INTER_TOKEN_BUCKETS,
            registry=self._registry,
        )
        queue_gauge = Gauge(
            f"{PREFIX}_requests_waiting",
            "Requests in the queue",
            ["model"],
            registry=self._registry,
        )
        slot_gauge = Gauge(
            f"{PREFIX}_requests_running",
            "Requests that have a slot",
            ["model"],
            registry=self._registry,
        )
        for model in models:
            num_waiting = partial(getattr, model.batcher, "num_waiting")
            num_running = partial(getattr, model.batcher, "num_running")
            queue_gauge.labels(model.name).set_function(num_waiting)
            slot_gauge.labels(model.name).set_function(num_running)

    def _token_counter(self, name: str, description: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", description, ["model"], registry=self._registry)

    def count(self, route: str, status: int) -> None:
        """Count one request."""
        self._requests.labels(route if route in self._routes else "other", str(status)).inc()

    def text(self) -> bytes:
        """All figures in the text format of Prometheus."""
        return generate_latest(self._registry)
