"""Counters for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from ranker.extras import require

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters of one server, in their own registry."""

    def __init__(self) -> None:
        prometheus = require("prometheus_client")
        self._registry = prometheus.CollectorRegistry()
        self._latest = prometheus.generate_latest
        self._gauge = prometheus.Gauge
        named = {"registry": self._registry}
        self.requests = prometheus.Counter("ranker_requests", "requests", ["route", "status"], **named)
        self.seconds = prometheus.Histogram("ranker_request_seconds", "seconds", ["route"], buckets=SECONDS, **named)
        self.items = prometheus.Counter("ranker_items", "items that were accepted", **named)
        self.errors = prometheus.Counter("ranker_item_errors", "items that could not be scored", **named)

    def watch(self, queue_length: Callable[[], int]) -> None:
        """Add a gauge of the queue's length."""
        self._gauge("ranker_queue_items", "items that wait", registry=self._registry).set_function(queue_length)

    def text(self) -> str:
        """All of it in Prometheus' text format."""
        return str(self._latest(self._registry).decode())
