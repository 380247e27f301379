"""A redrive computes only the chosen failures again, permanent ones too, and continues their attempts."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mm_assets.cells.run_tags import REDRIVE_TAG
from mm_assets.operations.redrive import Outcome, select_redrives
from mm_embed_kernels import error_classes
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernels.base import Kernel, results
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.resources import default_embedder
from mm_resources.tables.failure_events import FailureFilter

IMAGE = get("image")
KERNELS: dict[str, tuple[Callable[[BlobStore], Kernel], str]] = {
    "sample_metadata": (lambda blobs: ProbeKernel(IMAGE, blobs), ""),
    "segments": (lambda blobs: SegmentKernel(IMAGE, blobs), ""),
    "embeddings": (lambda blobs: default_embedder(IMAGE).kernel(blobs, Limits()), "#full"),
}


CRASH = SampleError("decoder_crash", "the decoder died with SIGSEGV")


def crash(platform: Any, stage: str, photo: Path, error: SampleError = CRASH) -> None:
    """Cache a permanent failure of a sound photo, as if the stage's kernel had died on it."""
    make, place = KERNELS[stage]
    kernel = make(platform.catalog.blobs)
    key = hashlib.sha256(photo.read_bytes()).hexdigest() + place
    died = results([key], [error], 0.1, kernel.result)
    platform.catalog.cache.space(kernel).append(died, {})


def redriven(platform: Any, chosen: FailureFilter, dagster: bool = False) -> tuple[Any, Outcome]:
    (found,) = select_redrives(
        platform.catalog, "tiny@v1", platform.registry.cells("tiny@v1", "image"), chosen
    )
    result = platform.backfill("tiny@v1", "image", redrive=chosen, dagster=dagster)["image"]
    return result, found.outcome(platform.catalog)


def failed(platform: Any) -> dict[str, int]:
    """Return error class -> attempts."""
    events = platform.catalog.failures.read(platform.cell("tiny@v1", "image")).read_all().to_pylist()
    return {event["error_class"]: event["attempt"] for event in events}


# One of the kernels in `make test`: the cache answers alike for each.
STAGES = [
    "embeddings",
    *(pytest.param(name, marks=pytest.mark.slow) for name in KERNELS if name != "embeddings"),
]


@pytest.mark.parametrize("stage", STAGES)
def test_a_permanent_failure_of_any_stage_is_tried_again_alone(
    lenient: Any, dataset: Path, photos: dict[str, Path], stage: str
) -> None:
    crash(lenient, stage, photos["temple"])
    assert lenient.backfill("tiny@v1", "image")["image"].status == "published"
    assert failed(lenient) == {"decoder_crash": 1, "truncated": 1}
    assert lenient.backfill("tiny@v1", "image")["image"].status == "unchanged", (
        "a plain backfill leaves it alone"
    )
    for chosen in (
        FailureFilter(error_class="decoder_crash"),
        FailureFilter(stage=stage, error_class="decoder_crash"),
    ):
        found = select_redrives(lenient.catalog, "tiny@v1", lenient.registry.cells("tiny@v1"), chosen)
        assert [(item.cell.modality, item.triable) for item in found] == [("image", 1)]

    result, outcome = redriven(lenient, FailureFilter(error_class="decoder_crash"), dagster=True)
    assert (result.status, outcome) == ("published", Outcome(tried=1, passed=1, failed=0))
    kernel = KERNELS[stage][0](lenient.catalog.blobs)
    assert result.computed[kernel.name] == 1
    assert failed(lenient) == {"truncated": 1}
    assert lenient.features.search("a temple", dataset_version="tiny@v1", modality="image", k=5).num_rows == 2
    tags = lenient.instance.get_run_by_id(result.run_id).tags
    assert FailureFilter.loads(tags[REDRIVE_TAG]) == FailureFilter(error_class="decoder_crash")


@pytest.mark.parametrize("stage", STAGES)
def test_a_cached_failure_of_a_class_that_is_gone_is_recorded_as_it_is(
    lenient: Any, photos: dict[str, Path], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plug-in that declared it is no longer installed, or an older version knew it."""
    with monkeypatch.context() as earlier:
        earlier.setattr(error_classes, "_by_name", dict(error_classes._by_name))
        earlier.setattr(error_classes, "_declared", {})
        error_classes.declare("of_old", meaning="Something.", action="Nothing.")
        crash(lenient, stage, photos["temple"], SampleError("of_old", "text"))
    assert error_classes.lookup("of_old") is None
    assert lenient.backfill("tiny@v1", "image")["image"].status == "published"
    assert failed(lenient) == {"of_old": 1, "truncated": 1}
    assert redriven(lenient, FailureFilter(error_class="of_old"))[1] == Outcome(tried=1, passed=1, failed=0)


def test_attempts_are_counted_over_redrives(lenient: Any) -> None:
    lenient.backfill("tiny@v1", "image")
    for attempt in (2, 3):
        result, outcome = redriven(lenient, FailureFilter())
        assert result.computed["probe"] == 1
        assert (result.status, outcome) == ("published", Outcome(tried=1, passed=0, failed=1))
        assert failed(lenient) == {"truncated": attempt}


def test_another_stage_is_left_alone(lenient: Any, photos: dict[str, Path]) -> None:
    crash(lenient, "embeddings", photos["temple"])
    lenient.backfill("tiny@v1", "image")
    result, outcome = redriven(lenient, FailureFilter(stage="embeddings"))
    assert (result.computed["probe"], result.computed["embed:conse"], outcome.passed) == (0, 1, 1)
    assert failed(lenient) == {"truncated": 1}


def test_what_was_gone_is_fetched_when_it_is_back(lenient: Any, dataset: Path, tmp_path: Path) -> None:
    temple = dataset.parent / "photos" / "temple" / "1.jpg"
    cell = lenient.cell("tiny@v1", "image")
    lenient.registry.listings.freeze(
        lenient.registry.spec("tiny", "v1"), lenient.registry.spec("tiny", "v1").sources[0]
    )
    shutil.move(temple, tmp_path / "away")
    lenient.backfill("tiny@v1", "image")
    assert failed(lenient) == {"not_found": 1, "truncated": 1}
    assert redriven(lenient, FailureFilter(stage="raw_assets"))[1] == Outcome(1, 0, 1)
    assert failed(lenient) == {"not_found": 2, "truncated": 1}
    shutil.move(tmp_path / "away", temple)
    result, outcome = redriven(lenient, FailureFilter(stage="raw_assets"))
    assert (result.computed["fetch"], outcome) == (1, Outcome(1, 1, 0))
    assert lenient.registry.pins.get(cell).accounting["published"] == 2


def test_what_fails_later_has_not_passed(lenient: Any, photos: dict[str, Path]) -> None:
    crash(lenient, "sample_metadata", photos["temple"])
    crash(lenient, "embeddings", photos["temple"])
    lenient.backfill("tiny@v1", "image")
    result, outcome = redriven(lenient, FailureFilter(stage="sample_metadata", error_class="decoder_crash"))
    assert (result.status, outcome) == ("published", Outcome(tried=1, passed=0, failed=1))


def test_a_redrive_behind_a_closed_gate_reaches_nothing(
    platform: Any, dataset: Path, photos: dict[str, Path]
) -> None:
    crash(platform, "embeddings", photos["temple"])
    dataset.write_text(dataset.read_text().replace("max_failed_share: 0.5", "max_failed_share: 0.34"))
    platform.register(dataset)
    blocked = platform.backfill("tiny@v1", "image")["image"]
    assert (blocked.status, blocked.reason.startswith("feature_views")) == ("blocked", True)
    result, outcome = redriven(platform, FailureFilter(error_class="decoder_crash"))
    assert (result.status, outcome) == ("published", Outcome(1, 1, 0)), "what passes opens the gate"


def test_mistakes_and_decisions(lenient: Any) -> None:
    cells = lenient.registry.cells("tiny@v1")
    assert select_redrives(lenient.catalog, "tiny@v1", cells, FailureFilter()) == [], "nothing has failed yet"
    lenient.backfill("tiny@v1", "text")
    assert select_redrives(lenient.catalog, "tiny@v1", cells, FailureFilter()) == [], (
        "the listing refused it, and is frozen"
    )
    with pytest.raises(UserError, match=r"no such failure of tiny@v1; there are: bad_record in raw_assets$"):
        select_redrives(lenient.catalog, "tiny@v1", cells, FailureFilter(error_class="truncated"))
    with pytest.raises(UserError, match="'probe' is not known; there are: dataset_registry, raw_assets"):
        select_redrives(lenient.catalog, "tiny@v1", cells, FailureFilter(stage="probe"))
