"""Figures for Prometheus, read back by its own parser: as a text file, and by a push gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from mm_resources.monitoring.store_metrics import write_metrics
from tests.inbox import inbox


def samples(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_a_text_file_and_a_gateway_have_the_figures_of_the_store(published: Any, tmp_path: Path) -> None:
    file = tmp_path / "mm.prom"
    with inbox() as gateway:
        written = write_metrics(published.catalog, {"queued": 3}, file, gateway.url)
        ((path, _, body),) = gateway.received
    assert written == [str(file), gateway.url]
    assert path == "/metrics/job/mm"
    found = samples(file.read_text())
    assert set(found) == set(samples(body.decode()))
    # tiny@v1: two pictures and two sentences of three each are published.
    published_samples = {
        labels["modality"]: value for labels, value in found["mm_samples"] if labels["state"] == "published"
    }
    assert published_samples == {"image": 2, "text": 2}
    assert {labels["modality"]: value for labels, value in found["mm_failed_share"]} == {
        "image": 1 / 3,
        "text": 1 / 3,
    }
    assert [value for labels, value in found["mm_runs"] if labels["status"] == "queued"] == [3]
    assert sum(value for _, value in found["mm_cost_total"]) > 0
    rows = {
        (labels["kernel"], labels["outcome"]): value
        for labels, value in found["mm_kernel_rows_total"]
        if labels["modality"] == "text"
    }
    assert rows["probe", "computed"] >= 2
