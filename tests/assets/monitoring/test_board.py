"""Grafana's board and Prometheus' configuration in docker/: they name services, ports and figures that there are."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from mm_resources.monitoring.store_metrics import write_metrics
from mm_resources.serving.access import Access
from mm_resources.serving.service import Service
from tests.assets.monitoring.test_store_metrics import samples
from tests.assets.serving.conftest import PATIENT, TOKEN, client_of
from tests.processes import ROOT

FOLDER = ROOT / "docker"
BOARD: dict[str, Any] = json.loads((FOLDER / "grafana-board.json").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((FOLDER / "compose.observe.yaml").read_text("utf-8"))[
    "services"
]
SCRAPED: list[dict[str, Any]] = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))[
    "scrape_configs"
]


def test_each_figure_of_the_board_is_exported_with_its_labels(published: Any, tmp_path: Path) -> None:
    """By a scrape of `mm serve` with its token, and the text file of the job `metrics`."""
    file = tmp_path / "mm.prom"
    write_metrics(published.catalog, {"queued": 1}, file, "")
    exported = samples(file.read_text())
    with client_of(Service(published.catalog, PATIENT), Access({"prometheus": TOKEN})) as client:
        client.get("/v1/datasets", headers={"Authorization": f"Bearer {TOKEN}"})
        exported |= samples(client.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text)
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            expression = target["expr"]
            named = set(re.findall(r"\bmm_\w+", expression))
            assert named, panel["title"]
            assert named <= exported.keys(), f"{panel['title']}: {named - exported.keys()} is not exported"
            labels = {label for name in named for given, _ in exported[name] for label in given}
            grouped = re.findall(r"by \((.*?)\)", expression)
            wanted = {label.strip() for group in grouped for label in group.split(",")}
            selected = re.findall(r"\{(.*?)\}", expression)
            wanted |= {label for one in selected for label in re.findall(r"(\w+)\s*=", one)}
            wanted |= set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            assert wanted <= labels, f"{panel['title']}: {wanted - labels} is no label"
    titles = " ".join(panel["title"].lower() for panel in BOARD["panels"])
    for subject in ("rows", "failures by cause", "age of pins", "recall", "cost", "cache hits", "queue"):
        assert subject in titles


def test_prometheus_reads_services_that_there_are() -> None:
    ports = {"serve": "8808", "pushgateway": "9091"}
    targets = [target for job in SCRAPED for item in job["static_configs"] for target in item["targets"]]
    assert targets == [f"{service}:{port}" for service, port in ports.items()]
    for service in ports:
        assert set(SERVICES[service]["networks"]) & set(SERVICES["prometheus"]["networks"]), service
    secret = SERVICES["prometheus"]["secrets"][0]["target"]
    assert SCRAPED[0]["authorization"]["credentials_file"] == secret
    assert (
        SERVICES["code"]["environment"]["MM_METRICS_GATEWAY"] == f"http://pushgateway:{ports['pushgateway']}"
    )
    assert "metrics" in SERVICES["code"]["networks"]


def test_grafana_finds_its_source_and_its_board() -> None:
    mounts = dict(mount.removesuffix(":ro").split(":") for mount in SERVICES["grafana"]["volumes"])
    assert all((FOLDER / source).is_file() for source in mounts)
    (source,) = yaml.safe_load((FOLDER / "grafana/datasources.yaml").read_text("utf-8"))["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((FOLDER / "grafana/dashboards.yaml").read_text("utf-8"))["providers"]
    assert mounts["./grafana-board.json"].startswith(provider["options"]["path"] + "/")
    (variable,) = BOARD["templating"]["list"]
    assert (variable["type"], variable["query"]) == ("datasource", source["type"])
    assert {panel["datasource"]["uid"] for panel in BOARD["panels"]} == {f"${{{variable['name']}}}"}
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])
