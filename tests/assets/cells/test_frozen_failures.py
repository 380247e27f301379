"""Failures that the machine may have caused, from run to run of a cell."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mm_assets.cells import publication
from mm_assets.operations.backfill import unfinished_cells
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.kernels.base import results
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_embed_kernels.modalities import get
from mm_resources.compute.cache import BLAMED_AFTER_RUNS
from mm_resources.storage import lance_datasets
from mm_resources.tables.stage_refs import StageMeta


def cache_failure(platform: Any, photo: Path, runs: int) -> str:
    """Cache a timeout of a sound photo, seen in so many runs; return the cache's URI."""
    kernel = ProbeKernel(get("image"), platform.catalog.blobs)
    key = hashlib.sha256(photo.read_bytes()).hexdigest()
    late = results([key], [SampleError("timeout", "30 s", retryable=True)], 0.1, kernel.result)
    space = platform.catalog.cache.space(kernel)
    space.append(late, {key: runs - 1}, {key: runs - 1})
    return str(space.uri)


def failed(platform: Any) -> dict[str, bool]:
    """Return error class -> retryable."""
    events = platform.catalog.failures.read(platform.cell("tiny@v1", "image")).read_all().to_pylist()
    return {event["error_class"]: event["retryable"] for event in events}


def test_what_few_runs_have_seen_is_computed_again(lenient: Any, photos: dict[str, Path]) -> None:
    cache_failure(lenient, photos["temple"], BLAMED_AFTER_RUNS - 1)
    result = lenient.backfill("tiny@v1", "image")["image"]
    assert result.status == "published", result.reason
    assert failed(lenient) == {"truncated": False}


def test_what_several_runs_have_seen_is_the_samples_own(lenient: Any, photos: dict[str, Path]) -> None:
    cache_failure(lenient, photos["temple"], BLAMED_AFTER_RUNS)
    result = lenient.backfill("tiny@v1", "image")["image"]
    assert result.status == "published", result.reason
    assert failed(lenient) == {"timeout": False, "truncated": False}
    assert lenient.backfill("tiny@v1", "image")["image"].status == "unchanged"


def test_what_an_older_version_has_published_as_failed_is_computed_again(
    lenient: Any, photos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counted no runs: neither its caches nor its stages have a count."""
    uri = cache_failure(lenient, photos["temple"], BLAMED_AFTER_RUNS)
    with monkeypatch.context() as older:
        older.setattr(
            publication, "StageMeta", lambda **known: replace(StageMeta(**known), counts_runs=False)
        )
        lenient.backfill("tiny@v1", "image")
    assert failed(lenient) == {"timeout": False, "truncated": False}
    cell = lenient.cell("tiny@v1", "image")
    assert unfinished_cells(lenient.catalog, [cell]) == [cell]
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    dataset.drop_columns(["runs"])
    result = lenient.backfill("tiny@v1", "image")["image"]
    assert (result.status, result.computed["probe"]) == ("published", 1)
    assert failed(lenient) == {"truncated": False}
    assert lenient.backfill("tiny@v1", "image")["image"].status == "unchanged"
    assert unfinished_cells(lenient.catalog, [cell]) == []
