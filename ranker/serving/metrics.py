"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from ranker.scoring.protocol import ScorerInfo

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper ends of the buckets of times."""

ITEMS: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Upper ends of the buckets of batch sizes."""

REASONS: Final = {
    401: "no_key",
    408: "slow_body",
    413: "body_too_long",
    422: "invalid",
    429: "queue_full",
    431: "head_too_long",
    499: "client_gone",
    503: "draining",
}
"""Why a request was refused, by its status, where nothing more is known of it."""

TOO_MANY: Final = "too_many_requests"
DEADLINE: Final = "deadline"
ENGINE: Final = "engine"
"""Reasons that share a status with another: 429 and 503."""


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """A batch that was computed.

    Attributes:
        items: groups.
        seconds: of the computation.
        waited: seconds that each request of it was in the queue.
        answers: of all groups.
        answers_read: by the model; each distinct one once, where its score does not depend on the others.
        tokens: computed, without padding.
        padding: tokens of padding.
    """

    items: int
    seconds: float
    waited: Sequence[float]
    answers: int
    answers_read: int
    tokens: int
    padding: int


class Metrics:
    """Metrics of one server, in their own registry, so that two servers in one process do not share them."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        ProcessCollector(registry=registry)
        self.requests = Counter("ranker_requests", "requests", ["route", "status"], registry=registry)
        self.seconds = Histogram("ranker_request_seconds", "seconds", ["route"], buckets=SECONDS, registry=registry)
        self.in_flight = Gauge("ranker_requests_in_flight", "requests that are being answered", registry=registry)
        self.refused = Counter("ranker_refused", "requests that were not answered", ["reason"], registry=registry)
        self.items = Counter("ranker_items", "items that were accepted", registry=registry)
        self.errors = Counter("ranker_item_errors", "items that could not be scored", registry=registry)
        self._answers = Counter("ranker_answers", "answers that were scored", registry=registry)
        self._read = Counter("ranker_answers_read", "answers that the model read; repeats once", registry=registry)
        self._tokens = Counter("ranker_tokens", "tokens that were computed, without padding", registry=registry)
        self._padding = Counter("ranker_padding_tokens", "tokens of padding", registry=registry)
        self._batch_items = Histogram("ranker_batch_items", "items of a batch", buckets=ITEMS, registry=registry)
        self._batch_seconds = Histogram("ranker_batch_seconds", "inference", buckets=SECONDS, registry=registry)
        self._waited = Histogram("ranker_queue_seconds", "wait in the queue", buckets=SECONDS, registry=registry)
        for reason in (*REASONS.values(), TOO_MANY, DEADLINE, ENGINE):
            self.refused.labels(reason)  # counters that exist at 0 can be watched for their first increase

    def watch(self, queue_length: Callable[[], int]) -> None:
        """Add a gauge of the queue's length, in groups; ``queue_length`` is called for every scrape."""
        gauge = Gauge("ranker_queue_items", "items that wait", registry=self.registry)
        gauge.set_function(queue_length)

    def describe(self, name: str, info: ScorerInfo, version: str) -> None:
        """Add the served model, as labels of a gauge that is 1."""
        labels = {
            "model": name,
            "layout": info.layout,
            "precision": info.precision,
            "device": info.device,
            "version": version,
        }
        Gauge("ranker_model_info", "the served model", [*labels], registry=self.registry).labels(**labels).set(1)

    def note_batch(self, batch: BatchFacts) -> None:
        """Count a batch."""
        self._batch_items.observe(batch.items)
        self._batch_seconds.observe(batch.seconds)
        for seconds in batch.waited:
            self._waited.observe(seconds)
        self._answers.inc(batch.answers)
        self._read.inc(batch.answers_read)
        self._tokens.inc(batch.tokens)
        self._padding.inc(batch.padding)

    def answered(self) -> int:
        """Requests that were answered so far, with whatever status."""
        samples = (sample for metric in self.requests.collect() for sample in metric.samples)
        return int(sum(sample.value for sample in samples if sample.name.endswith("_total")))

    def text(self) -> str:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry).decode()
