"""Binary columns, compressed tables, Lance datasets and Hugging Face folders."""

from __future__ import annotations

import base64
import bz2
import csv
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import mm_resources.objects.compressed_streams
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.compressed_streams import open_unpacked
from mm_resources.sources import Listed, Source, open_source

CONTENTS = [bytes([i]) * (i * 100) for i in range(20)]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def source_of(uri: str | Path, schema: dict[str, str] | None = None, **record: str) -> Source:
    return open_source(SourceSpec(name="s", modality="image", uri=str(uri), record=record), schema or {})


def read(source: Source, item: Listed) -> bytes:
    found = source.fetch(item.uri, item.locator)
    return found if isinstance(found, bytes) else found.read()


def reread(uri: str | Path, **record: str) -> list[bytes | str]:
    """Return the content of each record, read backwards by another reader."""
    items, source = list(source_of(uri, **record).list()), source_of(uri, **record)
    return [item.error.error_class if item.error else read(source, item) for item in reversed(items)][::-1]


# -- binary columns


def as_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> None:
    parquet.write_table(pa.Table.from_pylist(rows), path, row_group_size=7, **options)


def as_jsonl(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text(
        "".join(json.dumps({**row, "image": base64.b64encode(row["image"]).decode()}) + "\n" for row in rows)
    )


def as_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "image": base64.urlsafe_b64encode(row["image"]).decode()} for row in rows)


def as_lance(path: Path, rows: list[dict[str, Any]]) -> None:
    import lance

    lance.write_dataset(pa.Table.from_pylist(rows), str(path), max_rows_per_file=6)


def as_blobs(path: Path, rows: list[dict[str, Any]]) -> None:
    import lance

    blob = pa.field("image", pa.large_binary(), metadata={"lance-encoding:blob": "true"})
    schema = pa.schema(
        [pa.field("id", pa.string()), blob, pa.field("label", pa.string()), pa.field("stars", pa.int64())]
    )
    lance.write_dataset(pa.Table.from_pylist(rows, schema=schema), str(path))


def as_arrow(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=6)


def as_arrow_file(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=6)


KINDS: dict[str, Callable[..., None]] = {
    "t.parquet": as_parquet, "t.jsonl": as_jsonl, "t.csv": as_csv, "t.lance": as_lance, "b.lance": as_blobs, "t.arrow": as_arrow,
    "f.arrow": as_arrow_file,
}  # fmt: skip


@pytest.mark.parametrize("name", KINDS)
def test_binary_columns(tmp_path: Path, name: str) -> None:
    rows = [{"id": f"i{i}", "image": content, "label": "x", "stars": i} for i, content in enumerate(CONTENTS)]
    KINDS[name](tmp_path / name, rows)
    source = source_of(tmp_path / name, {"stars": "int"}, bytes="image", id="id", label="label")
    items = list(source.list())
    assert [(item.key, item.label, item.columns, item.error) for item in items] == [
        (row["id"], "x", {"stars": row["stars"]}, None) for row in rows
    ]
    assert reread(tmp_path / name, bytes="image", id="id") == CONTENTS
    assert not source.single_object
    assert all(source.tag(item.uri, item.locator) == item.tag != "" for item in items)
    # Without ids the content is the key, and is read for it.
    keyed = list(source_of(tmp_path / name, bytes="image").list())
    assert [(item.key, item.size) for item in keyed] == [
        (content_hash(content), len(content)) for content in CONTENTS
    ]


@pytest.mark.parametrize("name", [name for name in KINDS if name != "b.lance"])
def test_text_columns(tmp_path: Path, name: str) -> None:
    KINDS[name](tmp_path / name, [{"id": str(i), "text": f"text {i}", "image": b""} for i in range(20)])
    assert reread(tmp_path / name, text="text", id="id") == [f"text {i}".encode() for i in range(20)]


def test_the_flavour_tells_text_from_bytes() -> None:
    assert source_of("/t.jsonl", text="a").flavour != source_of("/t.jsonl", bytes="a").flavour


def test_hugging_faces_struct(tmp_path: Path) -> None:
    (tmp_path / "beside.png").write_bytes(b"beside")
    rows = [
        {"image": {"bytes": b"inside", "path": "a.png"}, "id": "1"}, {"image": {"bytes": None, "path": "beside.png"}, "id": "2"},
        {"image": {"bytes": b"", "path": None}, "id": "3"}, {"image": {"bytes": None, "path": None}, "id": "4"},
        {"image": {"bytes": None, "path": "../outside.png"}, "id": "5"}, {"image": None, "id": "6"},
    ]  # fmt: skip
    schema = pa.schema([("image", STRUCT), ("id", pa.string())])
    parquet.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "t.parquet")
    (tmp_path.parent / "outside.png").write_bytes(b"outside")
    expected = [b"inside", b"beside", b"", "schema_mismatch", "path_escape", "schema_mismatch"]
    for record in ({"bytes": "image", "id": "id"}, {"bytes": "image"}):
        source, found = source_of(tmp_path / "t.parquet", **record), []
        for item in source.list():
            try:
                found.append(item.error.error_class if item.error else read(source, item))
            except SampleError as error:
                found.append(error.error_class)
        assert found == expected, record


def test_what_is_not_base64(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text(
        '{"b": "YQ=="}\n{"b": "Y"}\n{"b": "Grüße"}\n{"b": 5}\n{"b": "Y\\nQ=="}\n{"b": "_-8="}\n{"c": ""}\n'
    )
    assert reread(tmp_path / "t.jsonl", bytes="b") == [
        b"a",
        "schema_mismatch",
        "schema_mismatch",
        "schema_mismatch",
        b"a",
        b"\xff\xef",
        "missing_field",
    ]


def test_a_large_row_group_is_not_held(tmp_path: Path) -> None:
    """One group of 64 MB: its rows come a few at a time."""
    size = 1 << 20
    table = pa.table({"id": [str(i) for i in range(64)], "image": [bytes([i]) * size for i in range(64)]})
    parquet.write_table(table, tmp_path / "t.parquet", compression="none", use_dictionary=False)
    del table
    before = pa.total_allocated_bytes()
    source, most = source_of(tmp_path / "t.parquet", bytes="image", id="id"), 0
    for i, item in enumerate(source.list()):
        assert read(source, item) == bytes([i]) * size
        most = max(most, pa.total_allocated_bytes() - before)
    assert most < 40 << 20


# -- compressed tables


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": lambda data: pa.compress(data, "zstd", asbytes=True),
}  # fmt: skip


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_compressed_tables(tmp_path: Path, packer: str, kind: str) -> None:
    rows = [{"id": str(i), "text": f"text {i}\nof two lines"} for i in range(2_000)]
    if kind == "jsonl":
        data = "".join(json.dumps(row) + "\n" for row in rows)
    else:
        stream = io.StringIO(newline="")
        writer = csv.DictWriter(stream, ["id", "text"], delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(rows)
        data = stream.getvalue()
    (tmp_path / f"t.{kind}.{packer}").write_bytes(PACKERS[packer](data.encode()))
    # Several members one behind the other are one file.
    (tmp_path / f"u.{kind}.{packer}").write_bytes(
        PACKERS[packer](data[:500].encode()) + PACKERS[packer](data[500:].encode())
    )
    for name in "tu":
        source = source_of(tmp_path / f"{name}.{kind}.{packer}", text="text", id="id")
        items = list(source.list())
        assert [item.key for item in items] == [row["id"] for row in rows]
        for place in (0, 1, 1999, 3, 1000, 1001):
            assert read(source, items[place]).decode() == rows[place]["text"]
    assert len(list(source_of(tmp_path / f"*.{kind}.{packer}", text="text").list())) == 4_000


def test_reading_forward_unpacks_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mm_resources.sources.lines

    (tmp_path / "t.jsonl.gz").write_bytes(
        gzip.compress(b"".join(b'{"text": "%d"}\n' % i for i in range(1_000)))
    )
    opened: list[str] = []
    monkeypatch.setattr(
        mm_resources.sources.lines,
        "open_unpacked",
        lambda uri, opener: open_unpacked(uri, lambda: opened.append(uri) or opener()),
    )
    source = source_of(tmp_path / "t.jsonl.gz", text="text")
    items = list(source.list())
    opened.clear()
    assert [read(source, item) for item in items] == [str(i).encode() for i in range(1_000)]
    assert len(opened) == 1


@pytest.mark.parametrize("packer", PACKERS)
def test_a_compressed_table_that_is_cut_off(tmp_path: Path, packer: str) -> None:
    import random

    text = "".join(json.dumps({"text": random.Random(i).randbytes(200).hex()}) + "\n" for i in range(6_000))
    packed = PACKERS[packer](text.encode())
    (tmp_path / f"t.jsonl.{packer}").write_bytes(packed[: len(packed) // 2])
    *good, last = list(source_of(tmp_path / f"t.jsonl.{packer}", text="text").list())
    assert len(good) > 100
    assert all(item.error is None for item in good[:-1])
    assert last.error is not None
    assert last.error.error_class in ("truncated", "bad_compression")


@pytest.mark.parametrize("packer", PACKERS)
def test_what_is_not_compressed(tmp_path: Path, packer: str) -> None:
    (tmp_path / f"t.jsonl.{packer}").write_bytes(b'{"text": "a"}\n' * 10)
    (item,) = source_of(tmp_path / f"t.jsonl.{packer}", text="text").list()
    assert item.error is not None
    assert item.error.error_class == "bad_compression"


def test_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mm_resources.objects.compressed_streams, "BOMB_BYTES", 4 << 20)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(b" " * (32 << 20)))
    (tmp_path / "u.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' + b" " * (3 << 20)))
    found = list(source_of(tmp_path / "*.jsonl.gz", text="text").list())
    assert [item.error.error_class if item.error else None for item in found] == ["decompression_bomb", None]


def test_a_line_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import mm_resources.sources.lines

    monkeypatch.setattr(mm_resources.sources.lines, "_LONGEST_LINE", 1000)
    (tmp_path / "t.jsonl").write_bytes(b'{"text": "a"}\n' + b"x" * 5_432 + b'\n{"text": "b"}\n')
    assert reread(tmp_path / "t.jsonl", text="text") == [b"a", "bad_record", b"b"]


# -- Lance


def test_a_lance_version_stays_readable(tmp_path: Path) -> None:
    import lance

    uri = str(tmp_path / "t.lance")
    as_lance(tmp_path / "t.lance", [{"id": str(i), "text": f"old {i}"} for i in range(10)])
    lance.dataset(uri).delete("id = '4'")
    source = source_of(uri, text="text", id="id")
    items = list(source.list())
    before = list(source.objects())
    lance.write_dataset(pa.table({"id": ["9"], "text": ["new"]}), uri, mode="overwrite")
    assert [read(source, item) for item in items] == [f"old {i}".encode() for i in range(10) if i != 4]
    assert source.tag(items[0].uri, items[0].locator) == items[0].tag
    assert list(source.objects()) != before
    with pytest.raises(SampleError, match="which is gone"):
        source.fetch(uri, "0@99")


def test_no_lance_dataset(tmp_path: Path) -> None:
    (tmp_path / "empty.lance").mkdir()
    for name in ("empty.lance", "none.lance"):
        with pytest.raises(UserError, match="does not exist, or is no Lance dataset"):
            list(source_of(tmp_path / name, text="text").list())


# -- Hugging Face folders


def saved(folder: Path, rows: list[dict[str, Any]], shards: int = 2) -> None:
    """A folder as ``Dataset.save_to_disk`` writes it."""
    folder.mkdir(parents=True)
    files = [f"data-{i:05d}-of-{shards:05d}.arrow" for i in range(shards)]
    for i, name in enumerate(files):
        as_arrow(folder / name, rows[i::shards])
    as_arrow(folder / "cache-0123456789abcdef.arrow", rows)  # what `map` leaves there
    (folder / "state.json").write_text(
        json.dumps(
            {"_data_files": [{"filename": name} for name in files], "_fingerprint": "x", "_split": None}
        )
    )
    (folder / "dataset_info.json").write_text("{}")


@pytest.fixture(params=["disk", "memory"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Makes of a folder on disk one in the place of the test."""
    if request.param == "disk":
        yield str
        return
    import fsspec

    fs = fsspec.filesystem("memory")
    yield lambda folder: fs.put(str(folder), "/hf", recursive=True) or "memory://hf"
    fs.rm("/hf", recursive=True)


def test_a_saved_dataset(tmp_path: Path, folders: Any) -> None:
    rows = [{"id": str(i), "image": {"bytes": bytes([i]), "path": None}, "text": f"t{i}"} for i in range(10)]
    saved(tmp_path / "set", rows)
    uri = folders(tmp_path / "set")
    assert source_of(uri, text="text").name == "huggingface"
    assert sorted(reread(uri, bytes="image", id="id")) == [bytes([i]) for i in range(10)]
    assert sorted(reread(uri, text="text")) == sorted(f"t{i}".encode() for i in range(10))


def test_a_saved_dictionary_of_datasets(tmp_path: Path, folders: Any) -> None:
    for split, first in (("train", 0), ("test", 6)):
        saved(tmp_path / "sets" / split, [{"text": f"t{i}"} for i in range(first, first + 4)])
    (tmp_path / "sets" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    uri = folders(tmp_path / "sets")
    assert sorted(reread(uri, text="text")) == sorted(f"t{i}".encode() for i in (*range(4), *range(6, 10)))
    assert sorted(reread(f"{uri}/test", text="text")) == sorted(f"t{i}".encode() for i in range(6, 10))


def test_a_folder_of_parquet_shards(tmp_path: Path, folders: Any) -> None:
    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "README.md").write_text("# a data set")
    for i in range(2):
        as_parquet(
            tmp_path / "set" / "data" / f"train-{i:05d}-of-00002.parquet",
            [{"text": f"{i} {n}"} for n in range(3)],
        )
    assert reread(folders(tmp_path / "set"), text="text") == [
        f"{i} {n}".encode() for i in range(2) for n in range(3)
    ]


def test_class_labels_have_names(tmp_path: Path) -> None:
    features = {
        "info": {
            "features": {
                "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
                "text": {"_type": "Value"},
            }
        }
    }
    table = pa.table({"text": ["a", "b", "c", "d"], "label": [1, 0, None, 7]}).replace_schema_metadata(
        {"huggingface": json.dumps(features)}
    )
    parquet.write_table(table, tmp_path / "t.parquet")
    assert [item.label for item in source_of(tmp_path / "t.parquet", text="text", label="label").list()] == [
        "dog",
        "cat",
        None,
        None,
    ]


def test_a_selection_of_rows_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "set", [{"text": "a"}])
    (tmp_path / "set" / "state.json").write_text(
        '{"_data_files": [], "_indices_files": [{"filename": "indices.arrow"}]}'
    )
    with pytest.raises(UserError, match="flatten_indices"):
        list(source_of(tmp_path / "set", text="text").list())


@pytest.mark.parametrize("name", ["t.arrow", "f.arrow"])
def test_damaged_arrow_files(tmp_path: Path, name: str) -> None:
    """Arrow's reader believes offsets: whatever bits are flipped, there is a failure or a value, never a crash."""
    import random

    KINDS[name](tmp_path / name, [{"id": str(i), "text": f"text {i}"} for i in range(200)])
    whole = (tmp_path / name).read_bytes()
    dice = random.Random(7)
    for cut in (0, 3, 10, 100, len(whole) // 2, len(whole) - 40):
        (tmp_path / name).write_bytes(whole[:cut])
        found = list(source_of(tmp_path / name, text="text").list())
        assert not found or cut == 0 or found[-1].error is not None or len(found) <= 200
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        (tmp_path / name).write_bytes(damaged)
        for item in source_of(tmp_path / name, text="text").list():
            assert item.error is not None or item.size is not None


def test_an_ingest_reads_a_compressed_table_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests come by their keys, which are hashes; they are fetched by their places, over all batches."""
    import mm_resources.sources.lines
    from mm_embed_kernels.kernels.base import Resources
    from mm_resources.blobs.blob_store import BlobStore
    from mm_resources.compute.cache import ComputeCache
    from mm_resources.compute.runner import KernelRunner
    from mm_resources.ingestion.fetch_kernel import FetchKernel
    from mm_resources.storage.store import Store
    from tests.resources.specs import spec_of

    for name in "ab":
        (tmp_path / f"{name}.jsonl.gz").write_bytes(
            gzip.compress(b"".join(b'{"text": "%d %s"}\n' % (i, name.encode()) for i in range(1_000)))
        )
    spec, store, opened = (
        spec_of({"uri": f"{tmp_path}/*.jsonl.gz", "record": {"text": "text"}}),
        Store(str(tmp_path / "store")),
        [],
    )
    rows = [
        {
            "key": content_hash(item.key.encode()),
            "source": "s0",
            "source_uri": item.uri,
            "locator": item.locator,
            "tag": item.tag,
            "size": item.size,
        }
        for item in open_source(spec.sources[0], {}).list()
    ]
    monkeypatch.setattr(
        mm_resources.sources.lines,
        "open_unpacked",
        lambda uri, opener: open_unpacked(uri, lambda: opened.append(uri) or opener()),
    )
    requests = pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]))
    report = KernelRunner(ComputeCache(store)).run(
        FetchKernel(spec, BlobStore(store), Resources(batch_rows=100)), requests
    )
    assert (report.computed, report.failed) == (2_000, 0)
    assert opened == [f"{tmp_path}/a.jsonl.gz", f"{tmp_path}/b.jsonl.gz"]
