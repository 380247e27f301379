"""The audit recomputes published rows from their blobs and reports a wrong one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_assets.definitions import build
from mm_assets.operations.audits import audit_tables
from mm_assets.operations.promotion import promote
from mm_embed_kernels.errors import UserError
from mm_resources.storage import lance_datasets
from tests.assets.conftest import Platform, platforms

SPEC = """
name: things
version: v1
embedders: {text: [wordllama]}
sources:
  - {name: notes, modality: text, uri: notes.jsonl, record: {id: id, text: text}}
  - {name: photos, modality: image, uri: "*.jpg"}
"""


@pytest.fixture(scope="module")
def things(tmp_path_factory: pytest.TempPathFactory, photos: dict[str, Path]) -> Iterator[Platform]:
    folder = tmp_path_factory.mktemp("audit")
    texts = [
        f"Sentence number {i} speaks of {word}."
        for i, word in enumerate(["rivers", "bread", "trains", "cats", "music", "snow"])
    ]
    (folder / "notes.jsonl").write_text(
        "\n".join(json.dumps({"id": i, "text": text}) for i, text in enumerate(texts)) + "\n"
    )
    for name, photo in photos.items():
        shutil.copy(photo, folder / f"{name}.jpg")
    (folder / "v1.yaml").write_text(SPEC)
    with platforms() as make:
        platform = make(folder / "platform")
        results = platform.backfill(platform.register(folder / "v1.yaml"))
        assert {result.status for result in results.values()} == {"published"}
        yield platform


def plant(platform: Platform, modality: str, place: int, **wrong: Any) -> str:
    """Publish a table with one row changed; return the id of its feature."""
    cell = platform.cell("things@v1", modality)
    pin = platform.registry.pins.get(cell)
    assert pin is not None
    uri = platform.store.uri(f"features/{pin.primary.table}.lance")
    dataset = lance_datasets.open_dataset(uri, pin.primary.lance_version)
    latest = lance_datasets.open_dataset(uri)
    assert dataset is not None
    assert latest is not None
    rows = dataset.to_table().to_pylist()
    rows[place] |= wrong
    version = lance_datasets.overwrite(
        uri,
        dataset.schema,
        pa.Table.from_pylist(rows, schema=dataset.schema).to_batches(),
        latest.version,
        "plant",
    )
    tables = [replace(table, lance_version=version) if table.primary else table for table in pin.tables]
    platform.registry.pins.publish(cell, replace(pin, number=pin.number + 1, tables=tables))
    return str(rows[place]["feature_id"])


def test_sound_rows_pass_and_a_planted_one_is_found(things: Platform) -> None:
    sound = list(audit_tables(things.catalog))
    assert {(table.modality, table.rows, table.checked) for table in sound} == {
        ("text", 6, 6),
        ("image", 2, 2),
    }
    assert all(
        table.same_fingerprint and table.wrong == [] and table.worst <= table.tolerance for table in sound
    )
    assert [table.checked for table in audit_tables(things.catalog, "things@v1", "text", sample=4)] == [4]

    pin = things.registry.pins.get(things.cell("things@v1", "image"))
    assert pin is not None
    vector = (
        things.catalog.features.dataset(pin.primary.table, pin.primary.lance_version)
        .take([1], columns=["vector"])["vector"][0]
        .as_py()
    )
    turned = np.roll(np.asarray(vector, np.float32), 1).tolist()
    planted = plant(things, "image", 1, vector=turned)
    (found,) = audit_tables(things.catalog, modality="image")
    assert [(wrong.feature_id, wrong.cause) for wrong in found.wrong] == [(planted, "vector")]
    assert found.wrong[0].distance is not None
    assert found.wrong[0].distance > found.tolerance

    promote(things.catalog, "things@v1", "production")
    spoiled = plant(things, "text", 3, text="Something else that nobody wrote.")
    (found,) = audit_tables(things.catalog, modality="text")
    assert [(wrong.feature_id, wrong.cause) for wrong in found.wrong] == [(spoiled, "text")]
    (promoted,) = audit_tables(things.catalog, "things@production", "text")
    assert (promoted.wrong, promoted.pin) == ([], found.pin - 1), "an alias names the pin that was promoted"
    failed = (
        build(store=things.settings.store)
        .resolve_job_def("audit")
        .execute_in_process(instance=things.instance, raise_on_error=False)
    )
    assert not failed.success

    for pack in list(things.store.objects("blobs/packs")):
        things.store.write(pack.name, b"")
    assert {
        wrong.cause for table in audit_tables(things.catalog, modality="text") for wrong in table.wrong
    } == {"blob_damaged"}


def test_nothing_published_is_said(platform: Platform) -> None:
    executed = (
        build(store=platform.settings.store)
        .resolve_job_def("audit")
        .execute_in_process(instance=platform.instance)
    )
    assert executed.success, "nothing that is published is nothing wrong"
    with pytest.raises(UserError, match="nothing is published; run"):
        list(audit_tables(platform.catalog))
