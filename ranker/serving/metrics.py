"""Counters for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the histogram's buckets, in seconds."""


class Metrics:
    """Counters of one server, in their own registry, so that two servers in one process do not share them."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        self.requests = Counter("ranker_requests", "requests", ["route", "status"], registry=registry)
        self.seconds = Histogram("ranker_request_seconds", "seconds", ["route"], buckets=BUCKETS, registry=registry)
        self.items = Counter("ranker_items", "items that were accepted", registry=registry)
        self.errors = Counter("ranker_item_errors", "items that could not be scored", registry=registry)

    def watch(self, queue_length: Callable[[], int]) -> None:
        """Add a gauge of the queue's length, in groups; ``queue_length`` is called for every scrape."""
        gauge = Gauge("ranker_queue_items", "items that wait", registry=self.registry)
        gauge.set_function(queue_length)

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()
