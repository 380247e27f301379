"""Forgetting removes a content from all files, versions and pins, refuses it later, and survives crashes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.maintenance import forgetting
from mm_resources.maintenance.forgetting import forget
from mm_resources.maintenance.table_rewrites import TableRewriter
from mm_resources.retrieval.picks import PickRequest, pick
from mm_resources.storage import lance_datasets
from mm_resources.storage.store import Store
from tests.assets.conftest import Platform, platforms

SPEC = """
name: notes
version: {version}
gates: {{max_failed_share: 0.9}}
embedders: {{text: [wordllama]}}
sources:
  - {{name: notes, modality: text, uri: notes.jsonl, record: {{id: id, text: text, label: topic}}}}
  - {{name: files, modality: text, uri: "*.txt"}}
"""
MARK = "zqxjforgetme"
SECRET = f"My secret {MARK} stands in this sentence about a lake."
PLAIN = {
    "bread": "A loaf of rye bread is baked in the oven with salt.",
    "boat": "The old boat lies at the pier and waits for the tide.",
    "train": "Seven trains leave the station in the morning.",
}
TABLES = ("failures", "stages", "features", "registry", "cache", "blobs", "ledger")


def write(platform: Platform, folder: Path, version: str, more: dict[str, str]) -> str:
    rows = [
        {"id": key, "text": text, "topic": key} for key, text in {**PLAIN, "secret": SECRET, **more}.items()
    ]
    (folder / "notes.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{broken\n")
    (folder / "copy.txt").write_text(SECRET)
    spec = folder / f"{version}.yaml"
    spec.write_text(SPEC.format(version=version))
    name = platform.register(spec)
    assert platform.backfill(name)["text"].status == "published"
    return name


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Platform, Path]]:
    folder = tmp_path_factory.mktemp("forgetting")
    with platforms() as make:
        platform = make(folder)
        write(platform, folder, "v1", {})
        write(platform, folder, "v2", {"cat": "A cat sleeps on the warm sofa."})
        yield platform, folder


def holding(platform: Platform, word: str) -> list[str]:
    """Return the files and table versions that contain a word: in their raw bytes, or in their rows."""
    found = []
    for root in (Path(platform.settings.store), platform.settings.dagster_home):
        found += [
            str(path) for path in root.rglob("*") if path.is_file() and word.encode() in path.read_bytes()
        ]
    store = Store(platform.settings.store)
    for name in [table for part in TABLES for table in store.tables(part)]:
        latest = lance_datasets.open_dataset(store.uri(name))
        assert latest is not None
        for version in latest.versions():
            dataset = lance_datasets.open_dataset(store.uri(name), version["version"])
            assert dataset is not None
            if word in json.dumps(dataset.to_table().to_pylist(), default=str):
                found.append(f"{name} at {version['version']}")
    return found


def dying(real: Callable[..., Any], times: int) -> Callable[..., Any]:
    """Return a method that raises at the end of its last call, like a kill."""
    calls: list[int] = []

    def die(*args: Any) -> Any:
        result = real(*args)
        calls.append(1)
        if len(calls) == times:
            raise KeyboardInterrupt
        return result

    return die


def test_nothing_of_it_is_left_and_it_stays_out(
    notes: tuple[Platform, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    platform, folder = notes
    features, digest = platform.features, content_hash(SECRET.encode())
    sets = {
        name: features.training_set(name, modality="text", columns=["text"]).manifest
        for name in ("notes@v1", "notes@v2")
    }
    by_text = features.training_set("notes@v1", modality="text", where=f"text LIKE '%{MARK}%'")
    by_text.record()
    (hit,) = features.search(MARK, dataset_version="notes@v1", modality="text", mode="text").to_pylist()
    before = holding(platform, MARK)
    assert any(".pack" in place for place in before)
    assert any(place.startswith("features/notes.v1.text.wordllama.lance at") for place in before)
    assert any(place.startswith("cache/segment-text") for place in before)
    pin = features.published("notes@v1", "text")
    for name, count in (("all", 99), ("one", 1)):
        pick(
            platform.catalog,
            pin,
            name,
            PickRequest(count, "random", where=None if count > 1 else "label = 'boat'"),
        )
    picked = features.pick("notes@v1", "text", "all")
    assert hit["sample_id"] in picked["sample_id"].to_pylist()
    one = features.pick("notes@v1", "text", "one")
    cached = {
        name: (lance_datasets.open_dataset(platform.store.uri(name)) or pytest.fail(name)).count_rows()
        for name in platform.store.tables("cache")
    }
    kept = {name: features.decisions(name, "text").num_rows for name in sets}

    steps = (
        (TableRewriter, "_rewrite_version", 3),
        (TableRewriter, "rewrite", 9),
        (forgetting, "move_pins", 1),
    )
    for owner, step, times in steps:
        with monkeypatch.context() as patched:
            patched.setattr(owner, step, dying(getattr(owner, step), times))
            with pytest.raises(KeyboardInterrupt):
                forget(platform.catalog, hit["sample_id"])
        assert platform.backfill("notes@v1")["text"].status == "failed", (
            "nothing is published beside an incomplete forgetting"
        )
    receipt = forget(platform.catalog, hit["sample_id"])

    assert receipt.hashes == [digest]
    assert len(receipt.samples) == 2, "the record and the file with the same content"
    assert holding(platform, MARK) == []
    assert [each["is_redacted"] for each in features.trace(by_text.digest)["sets"]] == [True]
    assert receipt.pins == ["notes@v1|text pin 1", "notes@v2|text pin 1"]
    assert receipt.blobs == 1, "stored once for both"

    # A pick loses the sample; the others keep their ranks and reasons, and other picks their bytes.
    left = features.pick("notes@v1", "text", "all")
    gone = set(receipt.samples) & set(picked["sample_id"].to_pylist())
    assert left.to_pylist() == [row for row in picked.to_pylist() if row["sample_id"] not in gone]
    assert receipt.rows["ledger/picks/notes/v1/text/all"] == len(gone) >= 1
    assert features.pick("notes@v1", "text", "one").equals(one)
    assert not any(name.endswith("/one") for name in receipt.rows)
    assert forget(platform.catalog, digest).number == receipt.number, "a repetition returns the same receipt"
    vectors = [name for name in cached if name.startswith("cache/embed")]
    assert vectors
    for name in vectors:
        dataset = lance_datasets.open_dataset(platform.store.uri(name))
        assert dataset is not None
        assert dataset.count_rows() == cached[name] - 1, "its vector, and no other"

    # Readers of the pins see all other rows.
    for name in sets:
        pin = features.published(name, "text")
        assert pin.forgotten == [receipt.number]
        counts = pin.accounting
        assert counts["discovered"] == counts["published"] + counts["dropped"] + counts["failed"]
        assert counts["failures"] == {"bad_record": 1}
        assert features.search(MARK, dataset_version=name, modality="text", mode="text").num_rows == 0
        assert features.search("rye bread", dataset_version=name, modality="text", mode="hybrid", k=1)[
            "label"
        ].to_pylist() == ["bread"]
        assert features.decisions(name, "text").num_rows == kept[name] - 2
        with pytest.raises(
            UserError,
            match=rf"were forgotten on .* \(receipt {receipt.number}\); make the training set again",
        ):
            features.training_set(manifest=sets[name])
        assert features.explain(
            features.search("rye", dataset_version=name, modality="text", k=1)["feature_id"][0].as_py()
        )["blob"]
    loaded = features.training_set("notes@v2", modality="text", columns=["text"]).to_torch(media=True)
    assert sorted(text for batch in loaded for text in batch["text"]) == sorted(
        [*PLAIN.values(), "A cat sleeps on the warm sofa."]
    )

    # The content is refused when it is ingested again.
    assert platform.backfill("notes@v1")["text"].status == "published"
    name = write(platform, folder, "v3", {})
    causes = platform.features.published(name, "text").accounting["failures"]
    assert causes == {"bad_record": 1, "forgotten": 2}
    assert holding(platform, MARK) == []


def test_what_nobody_has_heard_of_is_no_receipt(notes: tuple[Platform, Path]) -> None:
    platform, _ = notes
    for unknown in ("0" * 64, "0" * 32):
        with pytest.raises(UserError, match="no sample of this store has"):
            forget(platform.catalog, unknown)
    with pytest.raises(UserError, match="neither a content hash nor a sample id"):
        forget(platform.catalog, "x' OR 1=1")
    assert all(receipt.asked not in ("0" * 64, "0" * 32) for receipt in platform.catalog.receipts.all())
    assert os.listdir(platform.store.path("registry/forgotten"))
