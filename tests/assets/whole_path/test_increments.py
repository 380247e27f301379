"""A new version computes new bytes only; unchanged ones are neither computed, nor read, nor rewritten."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mm_assets.operations.backfill_plan import plan_cell
from mm_embed_kernels.contracts.pipeline import STAGES
from mm_embed_kernels.modalities import get
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute import ray_session
from mm_resources.costs.prices import Prices
from mm_resources.resources import default_embedder
from tests.assets.conftest import platforms

SPEC = """
name: {name}
version: {version}
embedders: {{text: [{embedder}]}}
curation: {{rules: {{too_short: {{min_words: {least}, action: drop}}}}}}
sources:
  - {{name: photos, modality: image, uri: "photos/**/*.jpg", label: {{from: parent_dir}}}}
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text}}}}
  - {{name: letters, modality: text, uri: "letters/*.txt"}}
"""
COUNT = 300


def register(
    platform: Any,
    folder: Path,
    version: str,
    *,
    name: str = "notes",
    embedder: str = "wordllama",
    least: int = 2,
) -> str:
    spec = folder / f"{name}-{version}.yaml"
    spec.write_text(SPEC.format(name=name, version=version, embedder=embedder, least=least))
    found: str = platform.register(spec)
    return found


def write_notes(folder: Path, changed: int = 0) -> None:
    """Write notes, half of them short; the first `changed` differ from their default."""
    notes = []
    for i in range(COUNT):
        what, more = "rivers" if i < changed else "mountains", " It does so again." if i % 2 else ""
        notes.append({"id": i, "text": f"Note {i} speaks of {what} and of the number {i}.{more}"})
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, notes)) + "\n")


def write_folder(folder: Path, photos: dict[str, Path]) -> None:
    for name, photo in photos.items():
        (folder / "photos" / name).mkdir(parents=True)
        shutil.copy(photo, folder / "photos" / name / "1.jpg")
    (folder / "letters").mkdir()
    (folder / "letters" / "a.txt").write_text(
        "A letter that will be renamed, though not a word of it changes."
    )
    write_notes(folder)


@pytest.fixture
def root(templates: Any, photos: dict[str, Path]) -> Path:
    """The folder of a platform that published ``notes@v1``."""

    def publish(root: Path) -> None:
        write_folder(root / "mine", photos)
        with platforms() as make:
            platform = make(root)
            results = platform.backfill(register(platform, root / "mine", "v1"))
            assert {result.status for result in results.values()} == {"published"}

    folder: Path = templates.restore("notes", publish)
    return folder


@pytest.fixture
def folder(root: Path) -> Path:
    return root / "mine"


@pytest.fixture
def v1(root: Path, new_platform: Any) -> Any:
    return new_platform(root)


def versions(platform: Any, dataset_version: str, modality: str) -> dict[str, str]:
    tables, cell = platform.catalog.tables, platform.cell(dataset_version, modality)
    return {name: meta.data_version for name in STAGES if (meta := tables.meta(name, cell))}


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The content hashes of the blobs that this process reads."""
    found: list[str] = []
    for name in ("read", "media"):
        real = getattr(BlobStore, name)
        monkeypatch.setattr(
            BlobStore,
            name,
            lambda self, digest, *place, real=real: found.append(digest) or real(self, digest, *place),
        )
    return found


def test_no_change_reads_no_blob_and_makes_nothing(
    v1: Any, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: versions(v1, "notes@v1", name) for name in ("image", "text")}
    pins = {name: v1.registry.pins.get(v1.cell("notes@v1", name)).number for name in before}
    monkeypatch.setattr(ray_session.RaySession, "start", lambda self: pytest.fail("Ray was started"))
    results = v1.backfill("notes@v1", mode="auto")
    assert {name: result.status for name, result in results.items()} == {
        "image": "unchanged",
        "text": "unchanged",
    }
    assert all(not any(result.computed.values()) for result in results.values())
    assert reads == []
    assert {name: versions(v1, "notes@v1", name) for name in before} == before
    assert {name: v1.registry.pins.get(v1.cell("notes@v1", name)).number for name in before} == pins


def test_new_bytes_alone_are_paid_for(
    v1: Any, folder: Path, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of 300 records change, one letter is renamed: four contents are fetched, three texts are computed."""
    write_notes(folder, changed=3)
    (folder / "letters" / "a.txt").rename(folder / "letters" / "b.txt")
    register(v1, folder, "v2")
    monkeypatch.setattr(ray_session.RaySession, "start", lambda self: pytest.fail("Ray was started"))
    text = v1.cell("notes@v2", "text")
    planned = {item.kernel: item for item in plan_cell(v1.catalog, text, default_embedder(get("text")))}
    assert planned["fetch"].computed == 4
    results = v1.backfill("notes@v2", mode="auto")
    assert results["text"].computed == {"fetch": 4, "probe": 3, "segment": 3, "embed:wordllama": 3}
    assert results["text"].reused == {
        "fetch": COUNT - 3,
        "probe": COUNT - 2,
        "segment": COUNT - 2,
        "embed:wordllama": COUNT - 2,
    }
    assert not any(results["image"].computed.values())
    assert len(set(reads)) == 3
    assert versions(v1, "notes@v1", "image")["embeddings"] == versions(v1, "notes@v2", "image")["embeddings"]


def test_a_plan_says_what_then_happens(v1: Any, folder: Path) -> None:
    """The plan is exact once the bytes are fetched, and computes nothing."""
    write_notes(folder, changed=7)
    register(v1, folder, "v2")
    register(v1, folder, "v3", embedder="minilm", least=12)
    assert v1.backfill("notes@v2", "text")["text"].status == "published"
    cell = v1.cell("notes@v3", "text")
    planned = plan_cell(v1.catalog, cell, default_embedder(get("text")))
    result = v1.backfill("notes@v3", "text")["text"]
    assert {item.kernel: item.computed for item in planned} == result.computed
    assert {item.kernel: item.reused for item in planned} == result.reused
    assert result.computed["embed:minilm"] > 0
    assert all(item.work.seconds > 0 and item.price(Prices()) > 0 for item in planned if item.computed)
    assert all(item.price(Prices()) == 0 for item in planned if not item.computed)


def test_another_embedder_computes_that_embedder_alone(v1: Any, folder: Path) -> None:
    register(v1, folder, "v2", embedder="minilm")
    results = v1.backfill("notes@v2")
    assert results["text"].computed == {"fetch": 0, "probe": 0, "segment": 0, "embed:minilm": COUNT + 1}
    assert not any(results["image"].computed.values())


def test_another_threshold_computes_no_bytes(v1: Any, folder: Path, reads: list[str]) -> None:
    """A changed rule of texts leaves images alone, and judges texts again without reading them."""
    register(v1, folder, "v2", least=12)
    results = v1.backfill("notes@v2")
    assert {result.status for result in results.values()} == {"published"}
    assert all(not any(result.computed.values()) for result in results.values())
    assert reads == []
    for stage in ("curated_samples", "embeddings", "feature_table"):
        assert versions(v1, "notes@v1", "text")[stage] != versions(v1, "notes@v2", "text")[stage]
    assert (
        versions(v1, "notes@v1", "image")["curated_samples"]
        == versions(v1, "notes@v2", "image")["curated_samples"]
    )


def test_another_dataset_shares_what_is_computed(v1: Any, folder: Path, reads: list[str]) -> None:
    register(v1, folder, "v1", name="others")
    results = v1.backfill("others@v1")
    assert all(not any(result.computed.values()) for result in results.values())
    assert reads == []
    assert results["text"].status == "published"
