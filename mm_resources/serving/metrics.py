"""Figures of a service for Prometheus: of its requests, and of the pins and the ledger behind it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from threading import Lock

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.cell_costs import cell_cost
from mm_resources.costs.prices import load_prices
from mm_resources.registry.pins import Pin
from mm_resources.settings import Settings

_LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
# Figures of pins are read again after so many seconds.
_PIN_SECONDS = 15.0
_COST_LABELS = ("stage", "currency")
_COUNTS = ("discovered", "ingested", "valid", "kept", "published", "dropped", "failed")


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
        """Show figures of the latest pins."""
        self.registry.register(_PinFigures(catalog))

    def text(self) -> bytes:
        """Return all figures in the format of Prometheus."""
        return generate_latest(self.registry)


class _PinFigures(Collector):
    """Figures of the latest pin of each cell."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._lock = catalog, Lock()
        self._read_at, self._pins = -_PIN_SECONDS, list[Pin]()
        # Of each pin once: what a later run of the cell spends comes with its next pin.
        self._known_costs: dict[tuple[Cell, int], list[tuple[str, str, float]]] = {}

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        labels = ["dataset_version", "modality"]
        samples = GaugeMetricFamily("mm_samples", "Samples of a pin.", labels=[*labels, "state"])
        failures = GaugeMetricFamily("mm_failures", "Failures of a pin.", labels=[*labels, "error_class"])
        age = GaugeMetricFamily("mm_pin_age_seconds", "Seconds since the publish.", labels=labels)
        recall = GaugeMetricFamily("mm_recall", "Recall@10 of an index.", labels=[*labels, "embedder"])
        rows = GaugeMetricFamily("mm_feature_rows", "Rows of a feature table.", labels=[*labels, "embedder"])
        cost = GaugeMetricFamily(
            "mm_cost", "Cost of a cell, from the ledger.", labels=[*labels, *_COST_LABELS]
        )
        for pin in self._latest():
            for stage, currency, price in self._costs(pin):
                cost.add_metric([pin.dataset_version, pin.modality, stage, currency], price)
            cell, counts = [pin.dataset_version, pin.modality], pin.accounting
            for state in _COUNTS:
                samples.add_metric([*cell, state], counts.get(state, 0))
            for cause, events in (counts.get("failures") or {}).items():
                failures.add_metric([*cell, cause], events)
            published = datetime.fromisoformat(pin.published_at)
            age.add_metric(cell, (datetime.now(UTC) - published).total_seconds())
            for table in pin.tables:
                rows.add_metric([*cell, table.embedder], table.rows)
                if table.recall is not None:
                    recall.add_metric([*cell, table.embedder], table.recall)
        return [samples, failures, age, recall, rows, cost]

    def _costs(self, pin: Pin) -> list[tuple[str, str, float]]:
        """Return stage, currency and cost of each stage of a cell."""
        key = (pin.cell, pin.number)
        if key not in self._known_costs:
            prices = load_prices(Settings.from_environment().prices)
            stages = cell_cost(self._catalog, pin.cell, prices).stages
            found = [(str(stage["stage"]), prices.currency, float(stage["price"])) for stage in stages]
            self._known_costs = {k: v for k, v in self._known_costs.items() if k[0] != pin.cell} | {
                key: found
            }
        return self._known_costs[key]

    def _latest(self) -> list[Pin]:
        with self._lock:
            if time.monotonic() - self._read_at >= _PIN_SECONDS:
                problems: list[str] = []
                self._pins = list(self._catalog.registry.latest_pins(problems=problems))
                self._read_at = time.monotonic()
            return self._pins
