"""Automation: specs from a folder, conditions between assets, backfills by the daemon."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mm_assets.automation.refresh import nightly
from mm_assets.automation.spec_sensor import specs
from mm_assets.cells.partitions import DATASET_VERSION, partition_key
from mm_assets.definitions import build
from mm_assets.operations.backfill import register_partition, unfinished_cells
from mm_assets.operations.dagster_home import PROCESS_TAG, process_tag
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources.resources import CatalogResource, StoreResource
from tests.assets.cells.test_gates import run_one
from tests.assets.conftest import Platform, run_in
from tests.postgres import postgres_server
from tests.processes import ROOT, answer, free_port, process, until


def resources(platform: Any) -> dict[str, Any]:
    return {"mm_catalog": CatalogResource(store=StoreResource(root=platform.settings.store))}


def tick(platform: Any, cursor: str | None) -> dg.SensorResult:
    with dg.build_sensor_context(
        instance=platform.instance, cursor=cursor, resources=resources(platform)
    ) as context:
        found = specs(context)
    assert isinstance(found, dg.SensorResult)
    for request in found.dynamic_partitions_requests or []:
        platform.instance.add_dynamic_partitions(DATASET_VERSION, list(request.partition_keys))
    return found


def requested(found: dg.SensorResult) -> list[str]:
    return sorted(str(request.partition_key) for request in found.run_requests or [])


def test_the_spec_sensor_requests_what_is_declared_once(platform: Any, dataset: Path) -> None:
    folder = platform.settings.datasets
    assert tick(platform, None).skip_reason is not None
    folder.mkdir(parents=True)
    text = dataset.read_text()
    (folder / "tiny.yaml").write_text(
        text.replace("photos/", f"{dataset.parent}/photos/").replace("uri: sen", f"uri: {dataset.parent}/sen")
    )
    first = tick(platform, None)
    assert requested(first) == ["tiny@v1|image", "tiny@v1|text"]
    assert platform.instance.get_dynamic_partitions(DATASET_VERSION) == ["tiny@v1"]
    assert requested(tick(platform, first.cursor)) == []
    # A changed spec under the same version is a mistake, reported once; the corrected one is a new version.
    (folder / "tiny.yaml").write_text(text.replace("max_failed_share: 0.5", "max_failed_share: 0.4"))
    second = tick(platform, first.cursor)
    assert requested(second) == []
    assert "a version stays frozen" in str(second.skip_reason.skip_message if second.skip_reason else "")
    third = str(tick(platform, second.cursor).skip_reason)
    assert "no spec is new or changed; still not registered: " in third
    assert "a version stays frozen" in third
    only_text = "\n".join(line for line in text.splitlines() if "photos" not in line)
    (folder / "tiny.yaml").write_text(only_text.replace("version: v1", "version: v2"))
    assert requested(tick(platform, second.cursor)) == ["tiny@v2|text"]


def test_a_cell_that_a_backfill_processes_is_not_requested_beside_it(platform: Any, dataset: Path) -> None:
    folder = platform.settings.datasets
    folder.mkdir(parents=True)
    text = dataset.read_text()
    (folder / "tiny.yaml").write_text(
        text.replace("photos/", f"{dataset.parent}/photos/").replace("uri: sen", f"uri: {dataset.parent}/sen")
    )
    tags = {"dagster/partition": "tiny@v1|image", PROCESS_TAG: process_tag()}
    run = dg.DagsterRun(job_name="refresh", status=dg.DagsterRunStatus.STARTED, tags=tags)
    platform.instance.add_run(run)
    first = tick(platform, None)
    assert requested(first) == ["tiny@v1|text"]
    assert "tiny@v1|image" not in requested(tick(platform, first.cursor))
    # The run has died, and published nothing.
    platform.instance.report_run_failed(run)
    assert "tiny@v1|image" in requested(tick(platform, first.cursor))


def test_what_is_published_is_not_requested_again(published: Any, tmp_path: Path) -> None:
    """A lost cursor requests nothing."""
    spec = published.settings.store.replace("store", "data") + "/dataset.yaml"
    published.settings.datasets.mkdir(exist_ok=True)
    link = published.settings.datasets / "tiny.yaml"
    text = Path(spec).read_text()
    link.write_text(
        text.replace("photos/", f"{Path(spec).parent}/photos/").replace(
            "uri: sen", f"uri: {Path(spec).parent}/sen"
        )
    )
    assert requested(tick(published, None)) == []


def test_nightly_goes_over_published_cells(published: Any) -> None:
    with dg.build_schedule_context(
        instance=published.instance,
        scheduled_execution_time=datetime(2026, 1, 1),
        resources=resources(published),
    ) as context:
        found = nightly(context)
    assert sorted(str(request.partition_key) for request in found) == ["tiny@v1|image", "tiny@v1|text"]  # type: ignore[union-attr]


def wanted(platform: Any, cursor: Any) -> tuple[set[str], Any]:
    """Return the assets of the text cell that the conditions request now, and the cursor of the evaluation."""
    found = dg.evaluate_automation_conditions(
        build(store=platform.settings.store, mode="inline"), platform.instance, cursor=cursor
    )
    key = partition_key(platform.cell("tiny@v1", "text"))
    return {name for name in STAGES if key in found.get_requested_partitions(dg.AssetKey(name))}, found.cursor


def test_conditions_flow_on_stop_at_a_gate_and_resume(platform: Any, dataset: Path) -> None:
    dataset.write_text(dataset.read_text().replace("max_failed_share: 0.5", "max_failed_share: 0.1"))
    platform.register(dataset)
    register_partition(platform.instance, "tiny@v1")
    asked, cursor = wanted(platform, None)
    assert asked == set()
    assert run_one(platform, "dataset_registry", "text").success
    asked, cursor = wanted(platform, cursor)
    assert asked == set(STAGES[1:]), "everything behind what is new, in one run"
    platform.backfill("tiny@v1", "text")  # the gate of validated_samples closes
    for _ in range(2):
        asked, cursor = wanted(platform, cursor)
        assert asked == set(), "nothing behind a failed gate"
    result = platform.backfill("tiny@v1", "text", override="known")["text"]
    assert result.status == "published"
    asked, cursor = wanted(platform, cursor)
    assert asked == set()
    assert run_one(platform, "dataset_registry", "text").success
    asked, cursor = wanted(platform, cursor)
    assert asked == set(), "an unchanged data version makes nothing needed"


def test_failed_only_leaves_sound_cells_out(platform: Any, dataset: Path) -> None:
    dataset.write_text(dataset.read_text().replace("photos/**/*.jpg", "photos/**/*.tiff"))
    platform.register(dataset)
    platform.backfill("tiny@v1")
    assert [
        cell.modality for cell in unfinished_cells(platform.catalog, platform.registry.cells("tiny@v1"))
    ] == ["image"]


def mm(work: Path, *words: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MM_", "DAGSTER_"))}
    command = [sys.executable, "-m", "mm_assets.cli.main", *words]
    return subprocess.Popen(
        command, cwd=work, env=kept, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_an_interrupted_backfill_can_be_resumed(tmp_path: Path, dataset: Path) -> None:
    """With the embedder that loads in a moment, since each command is a process of its own."""
    work = tmp_path / "work"
    work.mkdir()
    dataset.write_text(dataset.read_text() + "embedders: {text: [wordllama]}\n")
    assert mm(work, "register", str(dataset)).wait() == 0
    for stage, sent, code in (
        ("sample_metadata", signal.SIGINT, 130),
        ("segments", signal.SIGTERM, 143),
    ):
        running = mm(work, "backfill", "tiny@v1", "--modality", "text")
        deadline = time.monotonic() + 120
        while not (work / ".mm" / "store" / "stages" / stage).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        running.send_signal(sent)
        out, err = running.communicate(timeout=120)
        assert running.returncode == code, (out, err)
        assert err.strip() == "interrupted; run the same command again to resume"
    again = mm(work, "backfill", "tiny@v1", "--modality", "text", "--json")
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert '"status": "published"' in out
    assert '"fetch": 0' in out, "what was fetched before the interruption is not fetched again"


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """A Postgres server with the roles of docker/; yields the settings of the role that creates the tables."""
    folder, port = tmp_path_factory.mktemp("postgres"), free_port()
    subprocess.run(["sh", ROOT / "docker" / "secrets.sh", folder / "secrets"], check=True)
    with postgres_server(folder / "secrets", port):
        yield {
            "POSTGRES_HOST": "127.0.0.1", "POSTGRES_PORT": str(port), "POSTGRES_DB": "dagster", "POSTGRES_USER": "mm_schema",
            "PGPASSWORD": (folder / "secrets" / "postgres_schema").read_text().strip(), "MM_LOGS": str(folder / "logs"),
            "SECRETS": str(folder / "secrets"),
        }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sqlite", "postgres"])
def test_code_server_daemon_and_webserver_as_the_containers_run_them(
    storage: str,
    tmp_path: Path,
    dataset: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """The entry points of docker/ as plain processes on one instance execute a launched backfill."""
    work = tmp_path / "work"
    work.mkdir()
    if storage == "postgres":
        home = work / ".mm" / "dagster"
        home.mkdir(parents=True)
        settings = request.getfixturevalue("postgres")
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        # As the service `schema` does, and from there on without its role.
        config = (ROOT / "docker" / "dagster.yaml").read_text()
        (home / "dagster.yaml").write_text(
            config.replace("autocreate_tables: false", "autocreate_tables: true")
        )
        migrate = [sys.executable, "-m", "dagster", "instance", "migrate"]
        subprocess.run(
            migrate, env={**os.environ, "DAGSTER_HOME": str(home)}, check=True, capture_output=True
        )
        (home / "dagster.yaml").write_text(config)
        monkeypatch.setenv("POSTGRES_USER", "mm_code")
        monkeypatch.setenv("PGPASSWORD", (Path(settings["SECRETS"]) / "postgres_code").read_text().strip())
    assert mm(work, "register", str(dataset)).wait() == 0
    refused = mm(work, "backfill", "tiny@v1", "--launch", "--wait")
    assert refused.communicate(timeout=120)[1].startswith("error: no daemon processes backfills")
    assert refused.returncode == 2
    exports = dict(
        line.removeprefix("export ").split("=", 1)
        for line in mm(work, "env").communicate(timeout=120)[0].splitlines()
    )
    environment = {**os.environ, **exports}
    code, web = free_port(), free_port()
    workspace = work / "workspace.yaml"
    shipped = (ROOT / "docker" / "workspace.yaml").read_text()
    workspace.write_text(
        shipped.replace("host: code", "host: 127.0.0.1").replace("port: 4000", f"port: {code}")
    )
    image = (ROOT / "docker" / "Dockerfile").read_text()
    assert '"dagster", "api", "grpc", "--module-name", "mm_assets.definitions"' in image
    with (
        process(
            environment,
            "dagster",
            "api",
            "grpc",
            "--module-name",
            "mm_assets.definitions",
            "--host",
            "127.0.0.1",
            "--port",
            str(code),
        ),
        process(environment, "dagster._daemon", "run", "--workspace", str(workspace)),
        process(
            environment,
            "dagster_webserver",
            "--host",
            "127.0.0.1",
            "--port",
            str(web),
            "--workspace",
            str(workspace),
        ),
    ):
        healthy = [sys.executable, "-m", "dagster", "api", "grpc-health-check", "--port", str(code)]
        until(lambda: subprocess.run(healthy, capture_output=True, timeout=60).returncode == 0)
        until(lambda: b"dagster_version" in answer(f"http://127.0.0.1:{web}/server_info"))

        def launched() -> bool:
            run = mm(work, "backfill", "tiny@v1", "--modality", "text", "--launch", "--wait", "--json")
            outcome.append((*run.communicate(timeout=300), run.returncode))
            return "no daemon processes" not in outcome[-1][1]

        outcome: list[tuple[str, str, int]] = []
        until(launched)
        out, err, status = outcome[-1]
        query = json.dumps({"query": "{assetNodes {assetKey {path}}}"}).encode()
        listed = answer(f"http://127.0.0.1:{web}/graphql", query)
    assert status == 0, err
    assert '"status": "published"' in out
    assert "success" in err
    assert {node["assetKey"]["path"][0] for node in json.loads(listed)["data"]["assetNodes"]} == set(STAGES)
    assert bool(list((work / ".mm" / "dagster").rglob("*.db"))) == (storage == "sqlite"), (
        "the instance lies where it was told to"
    )


@pytest.mark.parametrize("words", [("--wait",), ("--failed-only", "--modality", "text")])
def test_selections_that_make_no_sense_are_mistakes(
    published: Platform, words: tuple[str, ...], tmp_path: Path
) -> None:
    done = run_in(tmp_path)("backfill", "tiny@v1", *words, **published.settings.exports())
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1
