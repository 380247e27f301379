"""OpenLineage events and traces of a cell's run, as a consumer on this machine receives them."""

from __future__ import annotations

import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from openlineage.client.event_v2 import Job, Run, RunEvent, RunState
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from mm_assets import event_queue
from mm_assets.cells.lineage_datasets import source_root, split_uri
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_resources import traces
from tests.assets.operations.test_promotion import SPEC, TOPICS
from tests.inbox import inbox
from tests.openlineage_schema import mistakes
from tests.processes import free_port


def publish(platform: Any, folder: Path) -> None:
    """Publish ``notes@v1``, four texts, by Dagster's job."""
    folder.mkdir()
    rows = [
        {"id": f"{topic}-{i}", "text": TOPICS[topic].format(i), "topic": topic}
        for topic in ("rivers", "bread")
        for i in range(2)
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    (folder / "v1.yaml").write_text(SPEC.format(version="v1"))
    result = platform.backfill(platform.register(folder / "v1.yaml"), dagster=True)["text"]
    assert result.status == "published", result


def _forget() -> None:
    event_queue.open_queue.cache_clear()
    traces._open_tracer.cache_clear()
    traces._own_provider.cache_clear()


@pytest.fixture
def forgotten() -> Iterator[None]:
    """The queue and the tracer are those of a process, which begins without."""
    _forget()
    yield
    _forget()


def named(dataset: dict[str, Any]) -> tuple[str, str]:
    return dataset["namespace"], dataset["name"]


@pytest.mark.usefixtures("forgotten")
def test_a_consumer_receives_the_lineage_and_the_trace_of_a_run(
    new_platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, folder = new_platform(tmp_path / "platform"), tmp_path / "notes"
    with inbox() as server:
        monkeypatch.setenv("OPENLINEAGE_URL", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        publish(platform, folder)
        queue = event_queue.open_queue()
        assert queue is not None
        assert queue.flush(10)
        assert queue.dropped == 0
        traces.flush_traces(10)
    received = server.received
    events = [json.loads(body) for path, _, body in received if path == "/api/v1/lineage"]
    pin = platform.registry.pins.get(platform.cell("notes@v1", "text"))

    assert [mistake for event in events for mistake in mistakes(event)] == []

    # Each stage begins and ends, with its checks as a job of their own, below the run of the cell.
    jobs = {event["job"]["name"] for event in events}
    assert {f"notes.text.{stage}" for stage in STAGES} | {"notes.text"} <= jobs
    states: dict[str, list[str]] = {}
    for event in events:
        states.setdefault(event["job"]["name"], []).append(event["eventType"])
        assert uuid.UUID(event["run"]["runId"])
        parent = event["run"]["facets"].get("parent")
        assert event["run"]["runId"] == pin.run_id if parent is None else parent["run"]["runId"] == pin.run_id
    assert set(map(tuple, states.values())) == {("START", "COMPLETE")}

    # Inputs are sources, or outputs of an earlier stage: the graph is connected.
    ends = [event for event in events if event["eventType"] == "COMPLETE"]
    made: set[tuple[str, str]] = set()
    read: dict[str, list[tuple[str, str]]] = {}
    for event in ends:
        read[event["job"]["name"]] = [named(each) for each in event["inputs"]]
        made |= {named(each) for each in event["outputs"]}
    inputs = {each for names in read.values() for each in names}
    assert inputs - made == {("file", str(folder / "notes.jsonl"))}
    assert all(read[f"notes.text.{stage}"] for stage in STAGES)

    # What is published: the feature table at its version, with the names that people know.
    by_name = {event["job"]["name"]: event for event in ends}
    outputs = by_name["notes.text.feature_views"]["outputs"]
    (table,) = [each for each in outputs if each["name"].endswith("notes.v1.text.wordllama.lance")]
    assert table["facets"]["version"]["datasetVersion"] == str(pin.primary.lance_version)
    assert table["outputFacets"]["outputStatistics"]["rowCount"] == 4
    assert {each["name"] for each in table["facets"]["symlinks"]["identifiers"]} == {
        "notes@v1/text",
        "notes/text",
    }
    assert {"vector", "feature_id", "label"} <= {each["name"] for each in table["facets"]["schema"]["fields"]}
    origin = by_name["notes.text.curated_samples"]["outputs"][0]["facets"]["columnLineage"]["fields"]
    assert origin["sample_id"]["inputFields"][0]["field"] == "sample_id"
    (checked,) = by_name["notes.text.feature_views.checks"]["inputs"]
    verdicts = {
        each["assertion"]: each["success"]
        for each in checked["inputFacets"]["dataQualityAssertions"]["assertions"]
    }
    assert verdicts["accounting"] is True
    assert verdicts["recall"] is True

    # The trace of the run has its id, a span for each stage, and those of kernels below theirs.
    spans = [
        span
        for path, _, body in received
        if path == "/v1/traces"
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert {span.trace_id.hex() for span in spans} == {pin.run_id.replace("-", "")}
    stages = {span.span_id: span.name for span in spans if span.name.startswith("stage ")}
    assert sorted(stages.values()) == sorted(f"stage {stage}" for stage in STAGES)
    kernels = {span.name: stages[span.parent_span_id] for span in spans if span.name.startswith("kernel ")}
    assert {"stage segments", "stage embeddings"} <= set(kernels.values()), kernels


@pytest.mark.usefixtures("forgotten")
def test_a_closed_gate_ends_the_run_of_the_cell(
    new_platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the transport to a file; the folder's name is no part of a URI as it stands."""
    platform, folder, file = (
        new_platform(tmp_path / "platform"),
        tmp_path / "my nötes",
        tmp_path / "events.jsonl",
    )
    for name, value in {"TYPE": "file", "LOG_FILE_PATH": str(file), "APPEND": "true"}.items():
        monkeypatch.setenv(f"OPENLINEAGE__TRANSPORT__{name}", value)
    folder.mkdir()
    (folder / "one.txt").write_text("The river runs slowly into the sea.")
    (folder / "two.txt").write_bytes(b"\x89PNG\r\n\x1a\n is no text")
    card = "card: {description: Notes of rivers., owners: ['team:water'], made_from: [raw/notes]}"
    spec = "{name: notes, version: v1, %s, gates: {max_failed_share: 0.1}, embedders: {text: [wordllama]}, sources: [{name: notes, modality: text, uri: '*.txt'}]}"
    (folder / "v1.yaml").write_text(spec % card)
    result = platform.backfill(platform.register(folder / "v1.yaml"), dagster=True)["text"]
    assert result.status == "blocked", result
    queue = event_queue.open_queue()
    assert queue is not None
    assert queue.flush(10)
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [mistake for event in events for mistake in mistakes(event)] == []
    of_cell = [event for event in events if event["job"]["name"] == "notes.text"]
    assert [event["eventType"] for event in of_cell] == ["START", "FAIL"]
    assert "failed_share: 1 of 2 samples failed" in of_cell[1]["run"]["facets"]["errorMessage"]["message"]
    sources = [
        each["facets"]["dataSource"]
        for event in events
        for each in event["inputs"]
        if "dataSource" in each["facets"]
    ]
    assert {each["uri"] for each in sources} == {folder.as_uri()}
    assert {each["name"] for each in sources} == {"notes"}


def test_what_is_wrong_in_an_event_is_found() -> None:
    """What the events above are looked at with."""
    facet = {
        "_producer": "https://a.example",
        "_schemaURL": "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json#/$defs/DatasetVersionDatasetFacet",
    }
    event = {
        "eventTime": "2026-12-01T00:00:00+00:00", "producer": "https://a.example", "eventType": "START",
        "schemaURL": "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent",
        "run": {"runId": str(uuid.uuid4()), "facets": {}}, "job": {"namespace": "mm", "name": "a", "facets": {}},
        "inputs": [{"namespace": "file", "name": "/a", "facets": {"version": {**facet, "datasetVersion": "1"}}}], "outputs": [],
    }  # fmt: skip
    assert mistakes(event) == []
    assert mistakes({**event, "eventTime": "yesterday"})
    assert mistakes({**event, "eventType": "BEGIN"})
    assert mistakes({**event, "run": {"runId": "1", "facets": {}}})
    assert mistakes({**event, "inputs": [{"name": "/a"}]})
    assert mistakes(
        {
            **event,
            "inputs": [
                {"namespace": "file", "name": "/a", "facets": {"version": {**facet, "datasetVersion": 1}}}
            ],
        }
    )
    assert mistakes(
        {
            **event,
            "job": {"namespace": "mm", "name": "a", "facets": {"version": {**facet, "datasetVersion": "1"}}},
        }
    )


@pytest.mark.usefixtures("forgotten")
def test_an_absent_broker_of_kafka_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the client of Kafka, which no extra installs, is there or not."""
    transport = {
        "type": "kafka",
        "topic": "lineage",
        "config": {"bootstrap.servers": f"127.0.0.1:{free_port()}"},
    }
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT", json.dumps(transport))
    assert event_queue.is_wanted()
    queue = event_queue.open_queue()
    if queue is None:
        assert "confluent_kafka is missing; pip install 'openlineage-python[kafka]'" in caplog.text
    else:
        at, run, job = "2026-12-01T00:00:00+00:00", Run(str(uuid.uuid4())), Job("mm", "a")
        queue.put(RunEvent(eventTime=at, run=run, job=job, eventType=RunState.START))
        assert not queue.flush(0.1)


@pytest.mark.usefixtures("forgotten")
def test_a_server_that_is_gone_costs_a_run_nothing(
    new_platform: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
        platform, folder = new_platform(tmp_path / "platform"), tmp_path / "notes"
        publish(platform, folder)
        queue = event_queue.open_queue()
        assert queue is not None
        queue.flush(10)
    assert platform.registry.pins.get(platform.cell("notes@v1", "text")) is not None


def test_a_queue_never_waits_twice_for_a_client_that_hangs() -> None:
    import threading

    class Hanging:
        def __init__(self) -> None:
            self.free, self.sent = threading.Event(), list[str]()

        def emit(self, event: str) -> None:
            self.free.wait(30)
            self.sent.append(event)

    client = Hanging()
    queue = event_queue.EventQueue(client)
    for number in range(event_queue.MOST + 5):
        queue.put(str(number))
    assert not queue.flush(0.05)
    assert not queue.flush(30), "it does not wait again"
    assert queue.dropped >= 4
    client.free.set()


def test_nothing_is_sent_where_nothing_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENLINEAGE_URL", "OPENLINEAGE_CONFIG", "OTEL_EXPORTER_OTLP_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert not event_queue.is_wanted()
    monkeypatch.setenv("OPENLINEAGE__TRANSPORT__TYPE", "file")
    assert event_queue.is_wanted()
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    assert not event_queue.is_wanted()
    with traces.trace_span("stage") as span:
        assert span is None


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("/data/birds/**/*.jpg", ("file", "/data/birds")),
        ("/data/notes.jsonl", ("file", "/data/notes.jsonl")),
        ("s3://bucket/birds/{a,b}/*.jpg", ("s3://bucket", "birds")),
        ("https://example.org/a/b.csv?token=s3cret", ("https://example.org", "/a/b.csv")),
        ("gs://bucket/all.parquet", ("gs://bucket", "all.parquet")),
    ],
)
def test_sources_are_named_as_their_storage_names_them(uri: str, name: tuple[str, str]) -> None:
    assert split_uri(source_root(uri)) == name
