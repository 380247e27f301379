"""Exports, each read back by the library of its format."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval import exports
from mm_resources.retrieval.exports import FORMS, export

COLUMNS = ["label", "split", "text", "user__stars"]


@pytest.fixture
def chosen(published: Any) -> Any:
    return published.features.training_set("tiny@v1", modality="text", columns=COLUMNS)


@pytest.fixture
def rows(chosen: Any) -> dict[str, dict[str, Any]]:
    return {row["feature_id"]: row for row in chosen.to_arrow().to_pylist()}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "SHARD_ROWS", 1)
    monkeypatch.setattr(exports, "TAR_ROWS", 1)


def test_parquet(chosen: Any, rows: dict[str, Any], published: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    assert export(chosen, "parquet", tmp_path / "out") == len(rows) == 2
    found = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["feature_id"]: row for row in found} == rows
    again = published.features.training_set(
        manifest=json.loads((tmp_path / "out" / "_manifest.json").read_text())
    )
    assert again.to_arrow().num_rows == 2


def test_webdataset(chosen: Any, rows: dict[str, Any], tmp_path: Path) -> None:
    import webdataset

    export(chosen, "webdataset", tmp_path / "out")
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    assert len(shards) == 2
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert {sample["__key__"] for sample in found} == rows.keys()
    for sample in found:
        row = rows[sample["__key__"]]
        assert sample["json"] == {name: value for name, value in row.items() if name != "vector"}
        assert np.array_equal(sample["npy"], np.asarray(row["vector"], np.float32))


def test_hugging_face(
    published: Any, rows: dict[str, Any], chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets

    export(chosen, "huggingface", tmp_path / "out")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    assert {split: len(part) for split, part in found.items()} == {
        split: sum(row["split"] == split for row in rows.values())
        for split in {row["split"] for row in rows.values()}
    }
    for split, part in found.items():
        for row in part:
            assert row["split"] == split
            assert row["text"] == rows[row["feature_id"]]["text"]
            assert row["vector"] == pytest.approx(rows[row["feature_id"]]["vector"])


def test_croissant(chosen: Any, rows: dict[str, Any], tmp_path: Path) -> None:
    import mlcroissant

    export(chosen, "croissant", tmp_path / "out")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.issues.errors
    found = list(dataset.records(record_set="features"))
    assert {record["features/feature_id"].decode() for record in found} == rows.keys()
    for record in found:
        row = rows[record["features/feature_id"].decode()]
        assert record["features/user__stars"] == row["user__stars"] == 5
        assert list(record["features/vector"]) == pytest.approx(row["vector"])


def test_what_is_exported_is_whole_or_not_there(
    chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(chosen, "parquet", tmp_path / "out")
    with pytest.raises(UserError, match="out exists; an export makes a new folder"):
        export(chosen, "parquet", tmp_path / "out")
    with pytest.raises(UserError, match="'csv' is no export format; there are: parquet, webdataset"):
        export(chosen, "csv", tmp_path / "other")

    def broken(*_: Any) -> int:
        raise OSError("no space left")

    monkeypatch.setitem(FORMS, "parquet", broken)
    with pytest.raises(OSError, match="no space"):
        export(chosen, "parquet", tmp_path / "other")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_modalities_are_joined(published: Any, tmp_path: Path) -> None:
    chosen = published.features.training_set("tiny@v1", modality=["image", "text"])
    with pytest.raises(UserError, match="so there is nothing to export"):
        export(chosen, "parquet", tmp_path / "out")
    assert isinstance(chosen.to_arrow(), pa.Table)
