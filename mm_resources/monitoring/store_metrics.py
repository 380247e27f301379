"""Figures of a store for Prometheus: of the latest pins, and of the work and cost behind them.

`mm serve` shows them at ``/metrics``; a job writes them for what runs elsewhere, as a text file of
node_exporter or to a push gateway.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Gauge, push_to_gateway, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from mm_embed_kernels import sql
from mm_resources.catalog import Catalog
from mm_resources.costs.prices import load_prices
from mm_resources.metering import Usage
from mm_resources.registry.pins import Pin
from mm_resources.settings import Settings

# Figures of pins, and of the ledger, are read again after so many seconds.
_PIN_SECONDS, _LEDGER_SECONDS = 15.0, 60.0
_COUNTS = ("discovered", "ingested", "valid", "kept", "published", "dropped", "failed")
# Seconds that a push gateway may take.
_PUSH_SECONDS = 10.0
_CELL = ["dataset_version", "modality"]
_STAGE = ["dataset", "modality", "stage"]
_WORK = """
SELECT dataset, modality, stage,
       sum(seconds) AS seconds, coalesce(sum(coalesce(cpu_seconds, seconds)), 0) AS cpu_seconds,
       coalesce(sum(gpu_seconds), 0) AS gpu_seconds, coalesce(sum(bytes_read), 0)::BIGINT AS bytes_read,
       coalesce(sum(bytes_written), 0)::BIGINT AS bytes_written,
       coalesce(sum(bytes_transferred), 0)::BIGINT AS bytes_transferred
FROM ledger GROUP BY ALL ORDER BY ALL
"""
_KERNELS = """
SELECT dataset, modality, kernel, sum(computed)::BIGINT AS computed, sum(reused)::BIGINT AS reused
FROM ledger WHERE kernel IS NOT NULL AND kernel <> '' GROUP BY ALL ORDER BY ALL
"""


class StoreMetrics(Collector):
    """Figures of the latest pin of each cell, and of the ledger by dataset, modality and stage."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog, self._lock = catalog, Lock()
        self._pins_at, self._pins = -_PIN_SECONDS, list[Pin]()
        self._unread = 0
        self._work_at = -_LEDGER_SECONDS
        self._work: list[dict[str, Any]] = []
        self._kernels: list[dict[str, Any]] = []

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            self._read()
            pins, work, kernels = self._pins, self._work, self._kernels
        unread = GaugeMetricFamily("mm_unread_versions", "Versions and pins that cannot be read.")
        unread.add_metric([], self._unread)
        return [*_pin_figures(pins), unread, *_work_figures(work), _cache_figures(kernels)]

    def _read(self) -> None:
        now = time.monotonic()
        if now - self._pins_at >= _PIN_SECONDS:
            problems: list[str] = []
            self._pins = list(self._catalog.registry.latest_pins(problems=problems))
            self._pins_at, self._unread = now, len(problems)
        if now - self._work_at >= _LEDGER_SECONDS:
            ledger = self._catalog.ledger.read().read_all()
            self._work = sql.fetch(_WORK, ledger=ledger).to_pylist()
            self._kernels = sql.fetch(_KERNELS, ledger=ledger).to_pylist()
            self._work_at = now


def _pin_figures(pins: list[Pin]) -> list[Metric]:
    samples = GaugeMetricFamily("mm_samples", "Samples of a pin.", labels=[*_CELL, "state"])
    failures = GaugeMetricFamily("mm_failures", "Failures of a pin.", labels=[*_CELL, "error_class"])
    share = GaugeMetricFamily("mm_failed_share", "Share of the samples that failed, 0 to 1.", labels=_CELL)
    age = GaugeMetricFamily("mm_pin_age_seconds", "Seconds since the publish.", labels=_CELL)
    recall = GaugeMetricFamily("mm_recall", "Recall@10 of an index.", labels=[*_CELL, "embedder"])
    rows = GaugeMetricFamily("mm_feature_rows", "Rows of a feature table.", labels=[*_CELL, "embedder"])
    for pin in pins:
        cell, counts = [pin.dataset_version, pin.modality], pin.accounting
        for state in _COUNTS:
            samples.add_metric([*cell, state], counts.get(state, 0))
        for cause, events in (counts.get("failures") or {}).items():
            failures.add_metric([*cell, cause], events)
        share.add_metric(cell, counts.get("failed", 0) / (counts.get("discovered") or 1))
        published = datetime.fromisoformat(pin.published_at)
        age.add_metric(cell, (datetime.now(UTC) - published).total_seconds())
        for table in pin.tables:
            rows.add_metric([*cell, table.embedder], table.rows)
            if table.recall is not None:
                recall.add_metric([*cell, table.embedder], table.recall)
    return [samples, failures, share, age, recall, rows]


def _work_figures(work: list[dict[str, Any]]) -> list[Metric]:
    prices = load_prices(Settings.from_environment().prices)
    kinds = {
        "seconds": CounterMetricFamily("mm_stage_seconds", "Wall time of a stage.", labels=_STAGE),
        "cpu_seconds": CounterMetricFamily("mm_stage_cpu_seconds", "CPU time of a stage.", labels=_STAGE),
        "gpu_seconds": CounterMetricFamily("mm_stage_gpu_seconds", "GPU time of a stage.", labels=_STAGE),
        "bytes_read": CounterMetricFamily("mm_stage_read_bytes", "Bytes that a stage read.", labels=_STAGE),
        "bytes_written": CounterMetricFamily(
            "mm_stage_written_bytes", "Bytes that a stage wrote.", labels=_STAGE
        ),
    }
    cost = CounterMetricFamily("mm_cost", "Price of all work so far.", labels=[*_STAGE, "currency"])
    for row in work:
        stage = [row["dataset"], row["modality"], row["stage"]]
        for name, family in kinds.items():
            family.add_metric(stage, row[name] or 0)
        used = Usage(**{name: row[name] or 0 for name in vars(Usage())})
        cost.add_metric([*stage, prices.currency], prices.of(used))
    return [*kinds.values(), cost]


def _cache_figures(kernels: list[dict[str, Any]]) -> Metric:
    labels = ["dataset", "modality", "kernel", "outcome"]
    rows = CounterMetricFamily("mm_kernel_rows", "Rows that were computed, and reused.", labels=labels)
    for row in kernels:
        for outcome in ("computed", "reused"):
            rows.add_metric([row["dataset"], row["modality"], row["kernel"], outcome], row[outcome] or 0)
    return rows


def write_metrics(catalog: Catalog, queue: Mapping[str, int], file: Path | None, gateway: str) -> list[str]:
    """Write the figures of a store, and of Dagster's queue, for Prometheus.

    Args:
        queue: status of Dagster's runs -> how many there are.
        file: ends in ``.prom``, in the folder of node_exporter's textfile collector; replaced as a whole.
        gateway: address of a push gateway.

    Returns:
        Where they are.

    Raises:
        OSError: when one of them cannot be written.
    """
    registry = CollectorRegistry()
    registry.register(StoreMetrics(catalog))
    runs = Gauge("mm_runs", "Runs of Dagster that are not finished.", ["status"], registry=registry)
    for status, count in queue.items():
        runs.labels(status).set(count)
    written = []
    if file is not None:
        write_to_textfile(str(file), registry)
        written.append(str(file))
    if gateway:
        push_to_gateway(gateway, job="mm", registry=registry, timeout=_PUSH_SECONDS)
        written.append(gateway)
    return written
