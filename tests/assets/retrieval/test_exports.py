"""Exports, each read back by the library of its format, with the media of its rows."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm_embed_kernels.errors import UserError
from mm_resources.exports import export, folder, formats
from mm_resources.exports.base import Request, Shard
from mm_resources.exports.forgotten import forgotten_samples
from mm_resources.exports.parquet import Parquet
from mm_resources.exports.webdataset import WebDataset
from mm_resources.storage.filesystems import lance_options
from mm_resources.storage.store import Store
from tests.processes import ROOT
from tests.s3 import BUCKET, S3

COLUMNS = ["key", "label", "split", "text", "user__stars"]
PICTURE_COLUMNS = ["key", "source_uri", "label", "split"]


@pytest.fixture
def chosen(published: Any) -> Any:
    return published.features.training_set("tiny@v1", modality="text", columns=COLUMNS)


@pytest.fixture
def pictures(published: Any) -> Any:
    return published.features.training_set("tiny@v1", modality="image", columns=PICTURE_COLUMNS)


def rows_of(chosen: Any) -> dict[str, dict[str, Any]]:
    return {row["feature_id"]: row for row in chosen.to_arrow().to_pylist()}


@pytest.fixture
def rows(chosen: Any) -> dict[str, dict[str, Any]]:
    return rows_of(chosen)


@pytest.fixture
def files(published: Any, pictures: Any) -> dict[str, bytes]:
    """The files that the pictures were listed from, by feature."""
    return {name: Path(row["source_uri"]).read_bytes() for name, row in rows_of(pictures).items()}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_parquet(chosen: Any, rows: dict[str, Any], published: Any, tmp_path: Path) -> None:
    assert export(chosen, "parquet", tmp_path / "out", shard_bytes=1) == len(rows) == 2
    shards = sorted((tmp_path / "out").glob("part-*.parquet"))
    assert len(shards) == 2
    found = [row for shard in shards for row in pq.read_table(shard).to_pylist()]
    assert {row["feature_id"]: row for row in found} == rows
    manifest = json.loads((tmp_path / "out" / "_manifest.json").read_text())
    assert published.features.training_set(manifest=manifest).to_arrow().num_rows == 2
    described = json.loads((tmp_path / "out" / "_export.json").read_text())
    for shard in described["shards"]:
        data = (tmp_path / "out" / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_pictures_in_parquet_are_the_files(pictures: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    export(pictures, "parquet", tmp_path / "out", media="whole")
    found = pq.read_table(tmp_path / "out").to_pylist()
    assert {row["feature_id"]: row["media"]["bytes"] for row in found} == files
    for row in found:
        assert row["media"]["path"] in {f"{row['feature_id']}.{suffix}" for suffix in ("png", "jpg")}


def test_webdataset(pictures: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    import webdataset

    export(pictures, "webdataset", tmp_path / "out", media="whole", shard_bytes=1)
    shards = sorted(str(path) for path in (tmp_path / "out").glob("*.tar"))
    assert len(shards) == len(files) > 1
    found = list(webdataset.WebDataset(shards, shardshuffle=False).decode("rgb8"))
    rows = rows_of(pictures)
    assert {sample["__key__"] for sample in found} == rows.keys()
    for sample in found:
        row = rows[sample["__key__"]]
        assert sample["json"] == {name: value for name, value in row.items() if name != "vector"}
        assert np.array_equal(sample["npy"], np.asarray(row["vector"], np.float32))
        assert Path(sample["__url__"]).name.startswith(f"{row['split']}-")
        from PIL import Image

        expected = np.asarray(Image.open(io.BytesIO(files[sample["__key__"]])).convert("RGB"))
        (suffix,) = sample.keys() & {"png", "jpg"}
        assert np.array_equal(sample[suffix], expected)
        if row["label"] is not None:
            assert pictures.classes[sample["cls"]] == row["label"]


def test_the_index_of_energon_finds_each_sample(pictures: Any, tmp_path: Path) -> None:
    import yaml

    export(pictures, "webdataset", tmp_path / "out", media="whole", energon=True)
    counts = json.loads((tmp_path / "out" / ".nv-meta" / ".info.json").read_text())["shard_counts"]
    parts = yaml.safe_load((tmp_path / "out" / ".nv-meta" / "split.yaml").read_text())["split_parts"]
    assert sum(counts.values()) == len(pictures)
    assert sorted(name for names in parts.values() for name in names) == sorted(counts)
    for name, count in counts.items():
        data = (tmp_path / "out" / name).read_bytes()
        index = (tmp_path / "out" / f"{name}.idx").read_bytes()
        offsets = struct.unpack(f"<{len(index) // 8}Q", index)
        assert len(offsets) == count + 1
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            starts: dict[str, int] = {}
            for member in archive.getmembers():
                starts.setdefault(member.name.partition(".")[0], member.offset)
        assert list(starts.values()) == list(offsets[:-1])


def test_hugging_face(
    pictures: Any, files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    import datasets
    from PIL import Image

    export(pictures, "huggingface", tmp_path / "out", media="whole")
    found = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = rows_of(pictures)
    assert {split: len(part) for split, part in found.items()} == {
        split: sum(row["split"] == split for row in rows.values())
        for split in {row["split"] for row in rows.values()}
    }
    for split, part in found.items():
        assert isinstance(part.features["media"], datasets.Image)
        assert part.features["label"].names == pictures.classes
        for row in part:
            known = rows[row["feature_id"]]
            assert row["split"] == split
            expected = np.asarray(Image.open(io.BytesIO(files[row["feature_id"]])).convert("RGB"))
            assert np.array_equal(np.asarray(row["media"].convert("RGB")), expected)
            assert row["vector"] == pytest.approx(known["vector"])
            if known["label"] is None:
                assert row["label"] is None
            else:
                assert part.features["label"].int2str(row["label"]) == known["label"]


def test_croissant(pictures: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    import mlcroissant

    export(pictures, "croissant", tmp_path / "out", media="whole")
    dataset = mlcroissant.Dataset(jsonld=str(tmp_path / "out" / "croissant.json"))
    assert not dataset.metadata.issues.errors
    written = json.loads((tmp_path / "out" / "croissant.json").read_text())
    assert written["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert "tiny@v1|image#" in json.dumps(written["prov:wasDerivedFrom"])
    assert "prov:wasAssociatedWith" in json.dumps(written["prov:wasGeneratedBy"])
    rows = rows_of(pictures)
    found = list(dataset.records(record_set="features"))
    assert {record["features/feature_id"].decode() for record in found} == rows.keys()
    for record in found:
        row = rows[record["features/feature_id"].decode()]
        assert record["features/key"].decode() == row["key"]
        assert np.asarray(record["features/vector"]).ravel() == pytest.approx(row["vector"])


def test_lance(pictures: Any, files: dict[str, bytes], tmp_path: Path) -> None:
    import lance

    export(pictures, "lance", tmp_path / "out", media="whole", shard_bytes=1)
    dataset = lance.dataset(str(tmp_path / "out" / "rows.lance"))
    names = dataset.to_table(columns=["feature_id"])["feature_id"].to_pylist()
    blobs = dataset.take_blobs("media", indices=list(range(len(names))))
    assert {name: blob.readall() for name, blob in zip(names, blobs, strict=True)} == files
    found = dataset.to_table(columns=["feature_id", "label"])
    rows = rows_of(pictures)
    assert dict(zip(*found.to_pydict().values(), strict=True)) == {n: row["label"] for n, row in rows.items()}


def test_atlas(pictures: Any, tmp_path: Path) -> None:
    export(pictures, "atlas", tmp_path / "out", media="whole")
    found = pq.read_table(tmp_path / "out")
    points = np.stack([found["projection_x"].to_numpy(), found["projection_y"].to_numpy()], axis=1)
    vectors = np.asarray(found["vector"].to_pylist())
    centered = vectors - vectors.mean(axis=0)
    singular = np.linalg.svd(centered, full_matrices=False)[1]
    assert np.linalg.norm(points, axis=0) == pytest.approx(singular[:2], abs=1e-4)


@pytest.mark.parametrize("form", ["parquet", "webdataset"])
def test_an_export_that_is_broken_off_has_the_same_bytes(
    pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    export(pictures, form, tmp_path / "whole", media="whole", shard_bytes=1)
    kind = {"parquet": Parquet, "webdataset": WebDataset}[form]
    write, calls = kind.write, []

    def broken(self: Any, rows: Any, sink: Any, request: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            sink.write(b"half")
            raise OSError("no space left")
        return write(self, rows, sink, request)

    monkeypatch.setattr(kind, "write", broken)
    with pytest.raises(OSError, match="no space"):
        export(pictures, form, tmp_path / "again", media="whole", shard_bytes=1, workers=1)
    assert [path.name for path in tmp_path.iterdir() if path.name != "whole"] == [".again.part"]
    with pytest.raises(UserError, match="has another export, which was broken off"):
        export(pictures, form, tmp_path / "again", shard_bytes=1)
    done = len(calls)
    export(pictures, form, tmp_path / "again", media="whole", shard_bytes=1)
    assert len(calls) - done == len(pictures) - 1, "a complete shard is not written again"
    assert contents(tmp_path / "again") == contents(tmp_path / "whole")


@pytest.mark.parametrize("step", ["replace", "remove_tree"])
def test_an_export_that_is_broken_off_at_its_end_is_completed(
    chosen: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Before the folder has its name, the same call goes on; after that, the export is complete."""
    export(chosen, "parquet", tmp_path / "whole")

    kept = os.replace

    def replace(source: Any, target: Any) -> None:
        if str(target).endswith("again"):
            raise OSError("the machine stops here")
        kept(source, target)

    def remove_tree(*_: Any) -> None:
        raise OSError("the machine stops here")

    owner, broken = (os, replace) if step == "replace" else (folder, remove_tree)
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, broken)
        with pytest.raises(OSError, match="stops here"):
            export(chosen, "parquet", tmp_path / "again")
    if step == "replace":
        assert not (tmp_path / "again").exists()
        export(chosen, "parquet", tmp_path / "again")
        assert contents(tmp_path / "again") == contents(tmp_path / "whole")
    assert (tmp_path / "again" / "_manifest.json").exists()


def test_what_is_exported_is_whole_or_not_there(chosen: Any, tmp_path: Path) -> None:
    export(chosen, "parquet", tmp_path / "out")
    with pytest.raises(UserError, match="out exists; an export makes a new folder"):
        export(chosen, "parquet", tmp_path / "out")
    with pytest.raises(UserError, match=f"'csv' is no export format; there are: {', '.join(formats())}"):
        export(chosen, "csv", tmp_path / "other")
    with pytest.raises(UserError, match="energon is no option of parquet; it has: none"):
        export(chosen, "parquet", tmp_path / "other", energon=True)
    with pytest.raises(UserError, match="media 'all' is not known; there are: whole, segments"):
        export(chosen, "parquet", tmp_path / "other", media="all")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="other exists"):
        export(chosen, "parquet", tmp_path / "other")


def test_to_a_url(chosen: Any, rows: dict[str, Any]) -> None:
    """fsspec's own file system in memory, which has no atomic rename either."""
    import fsspec

    export(chosen, "parquet", "memory://exports/tiny", shard_bytes=1)
    fs = fsspec.filesystem("memory")
    names = {Path(path).name for path in fs.find("/exports/tiny")}
    assert names == {
        "part-000000.parquet",
        "part-000001.parquet",
        "_manifest.json",
        "_export.json",
        "_samples.parquet",
    }
    with fs.open("/exports/tiny/part-000000.parquet") as stream:
        assert pq.read_table(stream)["feature_id"][0].as_py() in rows
    with pytest.raises(UserError, match="exists; an export makes a new folder"):
        export(chosen, "parquet", "memory://exports/tiny")
    fs.rm("/exports", recursive=True)


def bucket_contents(s3: S3, prefix: str) -> dict[str, bytes]:
    bucket = s3.folder / BUCKET
    return {key.removeprefix(f"{prefix}/"): (bucket / key).read_bytes() for key in s3.keys(f"{prefix}/")}


@pytest.mark.parametrize(
    "form",
    ["webdataset", *(pytest.param(each, marks=pytest.mark.slow) for each in ("parquet", "huggingface"))],
)
def test_an_export_to_a_bucket_that_is_broken_off_is_completed(
    pictures: Any, s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    export(pictures, form, tmp_path / "whole", media="whole", shard_bytes=1)
    kind = type(formats()[form])
    write, calls = kind.write, []

    def broken(self: Any, rows: Any, sink: Any, request: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            sink.write(b"half")
            raise OSError("the network stops here")
        return write(self, rows, sink, request)

    target = f"s3://{BUCKET}/exports/{form}"
    with monkeypatch.context() as patched:
        patched.setattr(kind, "write", broken)
        with pytest.raises(OSError, match="network stops"):
            export(pictures, form, target, media="whole", shard_bytes=1, workers=1)
    found = bucket_contents(s3, f"exports/{form}")
    assert "_manifest.json" not in found, "without it, the export is not complete"
    assert not any(data.startswith(b"half") for data in found.values())
    with pytest.raises(UserError, match="has another export, which was broken off"):
        export(pictures, form, target, shard_bytes=1)
    export(pictures, form, target, media="whole", shard_bytes=1)
    assert bucket_contents(s3, f"exports/{form}") == contents(tmp_path / "whole")
    with pytest.raises(UserError, match="exists; an export makes a new folder"):
        export(pictures, form, target, media="whole", shard_bytes=1)


def test_lance_in_a_bucket(pictures: Any, files: dict[str, bytes], s3: S3) -> None:
    import lance

    export(pictures, "lance", f"s3://{BUCKET}/exports/lance", media="whole", shard_bytes=1)
    uri = f"s3://{BUCKET}/exports/lance/rows.lance"
    dataset = lance.dataset(uri, storage_options=lance_options(uri))
    names = dataset.to_table(columns=["feature_id"])["feature_id"].to_pylist()
    blobs = dataset.take_blobs("media", indices=list(range(len(names))))
    assert {name: blob.readall() for name, blob in zip(names, blobs, strict=True)} == files


_KILLED = """
import os, signal, sys
from mm_resources import FeatureStore
from mm_resources.exports import export, formats

kind = type(formats()["webdataset"])
write, calls = kind.write, []

def killed(self, rows, sink, request):
    calls.append(1)
    if len(calls) == 2:
        sink.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    return write(self, rows, sink, request)

if sys.argv[3] == "kill":
    kind.write = killed
rows = FeatureStore.open(sys.argv[1]).training_set("tiny@v1", modality="image", columns=["label", "split"])
export(rows, "webdataset", sys.argv[2], media="whole", shard_bytes=1, workers=1)
"""


@pytest.mark.slow
def test_an_export_to_a_bucket_that_is_killed_is_completed(published: Any, s3: S3, tmp_path: Path) -> None:
    def run(target: str, how: str) -> int:
        words = [sys.executable, "-c", _KILLED, published.catalog.store.root, target, how]
        return subprocess.run(words, cwd=ROOT, timeout=300).returncode

    target = f"s3://{BUCKET}/exports/killed"
    assert run(target, "kill") == -signal.SIGKILL
    assert "_manifest.json" not in bucket_contents(s3, "exports/killed")
    assert run(target, "go on") == 0
    assert run(str(tmp_path / "whole"), "go on") == 0
    assert bucket_contents(s3, "exports/killed") == contents(tmp_path / "whole")


def test_modalities_are_joined(published: Any, tmp_path: Path) -> None:
    chosen = published.features.training_set("tiny@v1", modality=["image", "text"])
    with pytest.raises(UserError, match="so there is nothing to export"):
        export(chosen, "parquet", tmp_path / "out")
    assert isinstance(chosen.to_arrow(), pa.Table)


def test_what_was_forgotten_is_found_in_exports(published_copy: Any, tmp_path: Path) -> None:
    from mm_resources.maintenance.forgetting import forget

    chosen = published_copy.features.training_set("tiny@v1", modality="text", columns=COLUMNS)
    export(chosen, "parquet", tmp_path / "out", media="whole", shard_bytes=1)
    assert forgotten_samples(published_copy.catalog, str(tmp_path / "out")) == []
    first = chosen.to_arrow().to_pylist()[0]
    forget(published_copy.catalog, first["sample_id"])
    (found,) = forgotten_samples(published_copy.catalog, str(tmp_path / "out"))
    assert (found["sample_id"], found["feature_id"]) == (first["sample_id"], first["feature_id"])
    table = pq.read_table(tmp_path / "out" / found["file"])
    assert table["sample_id"].to_pylist() == [first["sample_id"]]
    assert found["receipt"] == published_copy.catalog.receipts.all()[-1].number


def test_energon_gets_no_split_under_the_name_of_another(tmp_path: Path) -> None:
    """Rows of a split of one's own are not those to train on."""
    import yaml

    request = Request(None, pa.schema([]), (), {}, True, {"energon": True})  # type: ignore[arg-type]
    names = ("train", "validation", "holdout")
    shards = [Shard(f"{name}-000000.tar", name, 1, 1, "", [0]) for name in names]
    WebDataset().finish(request, shards, Store(str(tmp_path)))
    parts = yaml.safe_load((tmp_path / ".nv-meta" / "split.yaml").read_text())["split_parts"]
    assert parts == {
        "train": ["train-000000.tar"],
        "val": ["validation-000000.tar"],
        "test": [],
        "holdout": ["holdout-000000.tar"],
    }
