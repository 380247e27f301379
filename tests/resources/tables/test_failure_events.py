from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.contracts import EMBEDDINGS, FAILURES
from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
from mm_embed_kernels.identity import environment_digest
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.storage import lance_datasets
from mm_resources.tables.failure_events import FailureEvents, FailureFilter
from mm_resources.tables.stage_refs import StageMeta

CELL = Cell("birds", "v1", "image")


@pytest.fixture
def failures(tmp_path: Path) -> FailureEvents:
    return Catalog.open(tmp_path).failures


def event(sample: str | None, error_class: str = "truncated", **more: Any) -> dict[str, Any]:
    return {"sample_id": sample, "error_class": error_class, "message": f"{error_class} at byte 17", **more}


def record(
    failures: FailureEvents,
    stage: str,
    cell: Cell,
    run_id: str,
    events: Iterable[dict[str, Any]],
    **more: str,
) -> tuple[int, int]:
    """Write events and commit the stage that names them, as a run does."""
    found = failures.write(stage, cell, run_id, events, **more)
    meta = StageMeta("d", "i", 0, 0, found.events, found.retryable, found.version, "e", "", {}, run_id, "now")
    read_version = failures.tables.fence(stage, cell)
    rows = failures.tables.write(stage, cell, EMBEDDINGS, [])
    failures.tables.commit(stage, cell, rows, meta, read_version)
    return found.events, found.retryable


def test_events_of_a_run_that_never_committed_count_for_nothing(failures: FailureEvents) -> None:
    record(failures, "segments", CELL, "winner", [event("a" * 32)])
    failures.write("segments", CELL, "loser", [event("b" * 32), event("c" * 32)])
    assert failures.read(CELL, ["sample_id", "run_id"]).read_all().to_pylist() == [
        {"sample_id": "a" * 32, "run_id": "winner"}
    ]


def test_events_meet_their_contract(failures: FailureEvents) -> None:
    events = [
        event("a" * 32, content_hash="c" * 64, source_uri="/data/a", retryable=False),
        event(
            "b" * 32, "fetch_error", retryable=True, attempt=3, segment_id="s", embedder="minilm", ignored="x"
        ),
        event(None, "source_unlisted"),
    ]
    assert record(failures, "raw_assets", CELL, "run-1", events, kernel="f" * 64) == (3, 1)
    table = failures.read(CELL).read_all()
    assert FAILURES.violations(table) == {}
    first, second, third = table.to_pylist()
    assert (first["dataset"], first["version"], first["modality"], first["stage"]) == (
        "birds",
        "v1",
        "image",
        "raw_assets",
    )
    assert (first["attempt"], first["retryable"], first["run_id"], first["kernel_fingerprint"]) == (
        1,
        False,
        "run-1",
        "f" * 64,
    )
    assert (first["content_hash"], first["source_uri"], first["environment"]) == (
        "c" * 64,
        "/data/a",
        environment_digest(),
    )
    assert (second["attempt"], second["retryable"], second["segment_id"], second["embedder"]) == (
        3,
        True,
        "s",
        "minilm",
    )
    assert third["sample_id"] is None
    assert first["fingerprint"] != second["fingerprint"]


def test_a_stage_replaces_its_own_events_alone(failures: FailureEvents) -> None:
    record(failures, "raw_assets", CELL, "r1", [event("a" * 32), event("b" * 32)])
    record(failures, "segments", CELL, "r1", [event("c" * 32)])
    record(failures, "raw_assets", Cell("birds", "v2", "image"), "r1", [event("d" * 32)])
    record(failures, "raw_assets", CELL, "r2", [event("b" * 32)])
    assert failures.read(CELL, ["sample_id", "run_id"]).read_all().to_pylist() == [
        {"sample_id": "b" * 32, "run_id": "r2"},
        {"sample_id": "c" * 32, "run_id": "r1"},
    ]
    assert failures.read(CELL, ["sample_id"], stages=["segments"]).read_all()["sample_id"].to_pylist() == [
        "c" * 32
    ]
    assert record(failures, "raw_assets", CELL, "r3", []) == (0, 0)
    assert failures.read(CELL, ["sample_id"]).read_all()["sample_id"].to_pylist() == ["c" * 32]


def test_a_stage_that_never_failed_writes_nothing(failures: FailureEvents, tmp_path: Path) -> None:
    found = failures.write("segments", CELL, "r", [])
    assert (found.events, found.version) == (0, 0)
    assert list(tmp_path.iterdir()) == []
    assert failures.read(CELL).read_all().num_rows == 0


def test_many_events_are_streamed(failures: FailureEvents) -> None:
    count = lance_datasets.READ_ROWS * 2 + 5
    assert record(
        failures, "segments", CELL, "r", (event(f"{i:032x}", retryable=i % 2 == 0) for i in range(count))
    ) == (
        count,
        count // 2 + 1,
    )
    assert len(set(failures.read(CELL, ["sample_id"]).read_all()["sample_id"].to_pylist())) == count


def test_counts_by_class_count_samples(failures: FailureEvents) -> None:
    record(
        failures,
        "embeddings",
        CELL,
        "r",
        [event("a" * 32, segment_id="1"), event("a" * 32, segment_id="2"), event("b" * 32, "timeout")],
    )
    record(
        failures,
        "raw_assets",
        CELL,
        "r",
        [event("c" * 32), event(None, "source_unlisted"), event(None, "source_unlisted")],
    )
    assert failures.by_class(CELL) == {"truncated": 2, "source_unlisted": 1, "timeout": 1}
    assert next(iter(failures.by_class(CELL))) == "truncated"  # the most frequent first


def test_all_stages_are_read(failures: FailureEvents) -> None:
    for i, stage in enumerate(FAILURE_STAGES):
        record(failures, stage, CELL, "r", [event(f"{i:032x}")])
    assert failures.read(CELL, ["stage"]).read_all()["stage"].to_pylist() == list(FAILURE_STAGES)


def test_causes_are_counted_with_an_example_each(failures: FailureEvents) -> None:
    other = Cell("birds", "v1", "text")
    record(
        failures,
        "sample_metadata",
        CELL,
        "r",
        [event(f"{i:032x}", attempt=i + 1, source_uri=f"/data/{i}") for i in range(4)],
    )
    record(
        failures,
        "embeddings",
        CELL,
        "r",
        [event("9" * 32, "fetch_error", retryable=True, segment_id=str(i)) for i in range(5)],
    )
    record(failures, "sample_metadata", other, "r", [event(None, "source_unlisted")])
    causes = failures.causes([CELL, other]).to_pylist()
    shown = ("modality", "stage", "error_class", "events", "samples", "retryable", "attempts", "sample_id")
    assert [tuple(cause[name] for name in shown) for cause in causes] == [
        ("image", "embeddings", "fetch_error", 5, 1, True, 1, "9" * 32),
        ("image", "sample_metadata", "truncated", 4, 4, False, 4, f"{0:032x}"),
        ("text", "sample_metadata", "source_unlisted", 1, 0, False, 1, None),
    ]
    assert (causes[1]["message"], causes[1]["source_uri"]) == ("truncated at byte 17", "/data/0")
    assert failures.causes([CELL], FailureFilter(error_class="no such")).num_rows == 0


def test_a_filter_takes_any_words_as_words(failures: FailureEvents) -> None:
    old = event("a" * 32, "it's", attempt=1)
    record(failures, "segments", CELL, "r", [old, event("b" * 32, "truncated")])
    for chosen, found in (
        (FailureFilter(), 2),
        (FailureFilter(error_class="it's"), 1),
        (FailureFilter(error_class="' OR true --"), 0),
        (FailureFilter("segments", sample_id="b" * 32), 1),
        (FailureFilter("embeddings"), 0),
    ):
        assert failures.read(CELL, ["sample_id"], chosen=chosen).read_all().num_rows == found
        assert FailureFilter.loads(chosen.dumps()) == chosen


def test_a_class_that_is_not_declared_is_refused(failures: FailureEvents) -> None:
    with pytest.raises(ValueError, match="'trunkated' is not declared; the nearest is 'truncated'"):
        failures.write("segments", CELL, "r", [event("a" * 32), event("b" * 32, "trunkated")])
    assert failures.tables.meta("segments", CELL) is None


def test_a_stored_class_is_copied_as_it_is(failures: FailureEvents) -> None:
    """A cache or a frozen listing may hold a class of an older version, or of a plug-in that is gone."""
    events = [event("a" * 32, "of_old", attempt=2), event("b" * 32, "of_a_listing", attempt=None)]
    record(failures, "raw_assets", CELL, "r", events)
    found = failures.read(CELL, ["error_class", "attempt"]).read_all().to_pylist()
    assert found == [
        {"error_class": "of_old", "attempt": 2},
        {"error_class": "of_a_listing", "attempt": 1},
    ]
    assert failures.by_class(CELL) == {"of_a_listing": 1, "of_old": 1}


def test_the_failures_of_before_can_be_read_after(failures: FailureEvents) -> None:
    record(failures, "segments", CELL, "r1", [event("a" * 32), event("b" * 32)])
    before = failures.versions(CELL)
    record(failures, "segments", CELL, "r2", [event("b" * 32)])
    assert failures.read(CELL, ["sample_id"], versions=before).read_all()["sample_id"].to_pylist() == [
        "a" * 32,
        "b" * 32,
    ]
    assert failures.read(CELL, ["sample_id"]).read_all()["sample_id"].to_pylist() == ["b" * 32]
    record(failures, "segments", CELL, "r3", [])
    assert failures.versions(CELL) == {}
