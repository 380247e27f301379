"""Figures of a service for Prometheus: of its requests, and of the pins and the ledger behind it."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mm_resources.catalog import Catalog
from mm_resources.monitoring.store_metrics import StoreMetrics

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class ServiceMetrics:
    """The figures of one service, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "mm_requests", "Requests answered.", ["route", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "mm_request_seconds", "Seconds of an answer.", ["route"], registry=registry, buckets=_LATENCIES
        )
        self.in_flight = Gauge("mm_requests_in_flight", "Requests in work.", registry=registry)
        self.cache = Counter("mm_cache", "Look-ups in a cache.", ["cache", "outcome"], registry=registry)
        self.batches = Histogram(
            "mm_text_batch_queries",
            "Text queries that are embedded together.",
            registry=registry,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.model_deaths = Counter("mm_model_deaths", "Ends of processes of models.", registry=registry)

    def observe(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one request."""
        known = method if method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS") else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def watch_queue(self, pending: Callable[[], int]) -> None:
        """Show the length of the queue of answers."""
        Gauge("mm_queue", "Answers in work or waiting.", registry=self.registry).set_function(pending)

    def watch_pins(self, catalog: Catalog) -> None:
        """Show figures of the latest pins, and of the work and cost behind them."""
        self.registry.register(StoreMetrics(catalog))

    def text(self) -> bytes:
        """Return all figures in the format of Prometheus."""
        return generate_latest(self.registry)
