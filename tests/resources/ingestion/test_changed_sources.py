"""A changed file of records makes new what differs in it: listed rows, fetched contents, data versions.

What differs is counted on the edited records themselves, and the whole listing of a second store is the measure.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels import sql
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.sql import RowDigest
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.retry_policy import Backoff
from mm_resources.compute.runner import ComputeReport, KernelRunner
from mm_resources.ingestion.fetch_kernel import REQUESTS, FetchKernel
from mm_resources.registry.registry import Registry
from mm_resources.sources.base import Source
from mm_resources.storage.store import Store
from tests.resources.specs import freeze, list_samples, spec_of


@dataclass(frozen=True)
class Entry:
    id: str
    content: str
    label: str


Files = dict[str, list[Entry]]


def jsonl(path: Path, entries: list[Entry], _seed: int) -> None:
    rows = (json.dumps({"id": e.id, "text": e.content, "label": e.label}) for e in entries)
    path.write_text("".join(f"{row}\n" for row in rows))


def jsonl_zst(path: Path, entries: list[Entry], _seed: int) -> None:
    rows = (json.dumps({"id": e.id, "text": e.content, "label": e.label}) for e in entries)
    with pa.CompressedOutputStream(str(path), "zstd") as sink:
        sink.write("".join(f"{row}\n" for row in rows).encode())


def comma(path: Path, entries: list[Entry], _seed: int) -> None:
    with path.open("w", newline="") as sink:
        csv.writer(sink).writerows([("id", "text", "label"), *((e.id, e.content, e.label) for e in entries)])


def table_of(entries: list[Entry], name: str) -> pa.Table:
    content = [e.content for e in entries] if name == "text" else [e.content.encode() for e in entries]
    kind = pa.string() if name == "text" else pa.binary()
    return pa.table(
        {
            "id": pa.array([e.id for e in entries], pa.string()),
            name: pa.array(content, kind),
            "label": pa.array([e.label for e in entries], pa.string()),
        }
    )


def parquet_text(path: Path, entries: list[Entry], seed: int) -> None:
    parquet.write_table(table_of(entries, "text"), path, row_group_size=1 + seed % 3)


def parquet_bytes(path: Path, entries: list[Entry], seed: int) -> None:
    parquet.write_table(table_of(entries, "data"), path, row_group_size=1 + seed % 3)


def arrow(path: Path, entries: list[Entry], _seed: int) -> None:
    table = table_of(entries, "text")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def members(entries: list[Entry], seed: int) -> list[tuple[str, bytes]]:
    parts = [(f"{e.id}.bin", e.content.encode()) for e in entries]
    parts += [(f"{e.id}.cls", e.label.encode()) for e in entries]
    random.Random(seed).shuffle(parts)
    return parts


def tar(path: Path, entries: list[Entry], seed: int) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".tgz" else "w") as archive:
        for name, data in members(entries, seed):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(path: Path, entries: list[Entry], seed: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members(entries, seed):
            archive.writestr(name, data)


TEXT = {"text": "text", "id": "id", "label": "label"}
BYTES = {"bytes": "data", "id": "id", "label": "label"}


@dataclass(frozen=True)
class Kind:
    ending: str
    write: Callable[[Path, list[Entry], int], None]
    source: dict[str, Any] = field(default_factory=dict)


KINDS = {
    "jsonl": Kind(".jsonl", jsonl, {"record": TEXT}),
    "jsonl.zst": Kind(".jsonl.zst", jsonl_zst, {"record": TEXT}),
    "csv": Kind(".csv", comma, {"record": TEXT}),
    "parquet": Kind(".parquet", parquet_text, {"record": TEXT}),
    "parquet of bytes": Kind(".parquet", parquet_bytes, {"record": BYTES}),
    "arrow": Kind(".arrow", arrow, {"record": TEXT}),
    "tar": Kind(".tar", tar),
    "tgz": Kind(".tgz", tar),
    "zip": Kind(".zip", zipped),
}

CONTENTS = st.text("ab ", min_size=1, max_size=3).filter(str.strip)
LABELS = st.sampled_from(["owl", "gull"])
NAMES = ("x", "y", "z")


@st.composite
def changes(draw: st.DrawFn) -> tuple[Files, Files]:
    """Files of records, and the same after some edits; ids are unique, contents are not."""
    count = draw(st.integers(3, 7))
    entries = [Entry(f"e{i}", draw(CONTENTS), draw(LABELS)) for i in range(count)]
    before: Files = {name: [] for name in NAMES}
    for i, entry in enumerate(entries):
        before[NAMES[i % 3] if i < 3 else draw(st.sampled_from(NAMES))].append(entry)
    after = {name: list(entries) for name, entries in before.items()}
    for step in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(NAMES))
        records = after[name]
        place = draw(st.integers(0, len(records) - 1)) if records else 0
        edit = draw(st.sampled_from(["front", "end", "remove", "alter", "relabel", "reorder"]))
        if edit in ("front", "end") or not records:
            records.insert(
                0 if edit == "front" else len(records), Entry(f"new{step}", draw(CONTENTS), draw(LABELS))
            )
        elif edit == "remove" and len(records) > 1:
            del records[place]
        elif edit == "alter":
            records[place] = replace(records[place], content=draw(CONTENTS))
        elif edit == "relabel":
            records[place] = replace(records[place], label=draw(LABELS))
        elif edit == "reorder":
            records.append(records.pop(0))
    return before, after


def write_files(folder: Path, kind: Kind, files: Files, seed: int) -> None:
    for name, entries in files.items():
        kind.write(folder / f"{name}{kind.ending}", entries, seed)


def fetch(registry: Registry, spec: DatasetSpec) -> tuple[ComputeReport, dict[str, str]]:
    """Fetch what a version lists; return the report, and the content hash of each key."""
    kernel = FetchKernel(spec, BlobStore(registry.store))
    cache = ComputeCache(registry.store)
    requests = sql.fetch(
        REQUESTS, listing=registry.listings.listing(spec, "text"), flavours=kernel.flavours()
    )
    report = KernelRunner(cache, backoff=Backoff(1, 0)).run(kernel, requests)
    cached = {row["key"]: row for row in cache.space(kernel).reader().read_all().to_pylist()}
    names = {row["sample_id"]: row["key"] for row in list_samples(registry, spec)}
    found = {names[row["sample_id"]]: cached[row["key"]] for row in requests.to_pylist()}
    return report, {key: row["content_hash"] for key, row in found.items() if row["status"] == "ok"}


def digest_of(registry: Registry, spec: DatasetSpec) -> str:
    contract = registry.listings.contract(spec)
    digest = RowDigest(contract.digest, contract.stand_ins)
    digest.update(registry.listings.listing(spec, "text").read_all())
    return digest.hexdigest()


def identities(registry: Registry, spec: DatasetSpec) -> set[tuple[Any, ...]]:
    """The rows of a listing as far as its data version tells them apart."""
    contract = registry.listings.contract(spec)
    stand_ins = dict(contract.stand_ins)
    return {
        tuple((stand_ins.get(name) and row[stand_ins[name]]) or row[name] for name in contract.digest)
        for row in list_samples(registry, spec)
    }


@contextmanager
def workplace() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="mm-changed-"))
    try:
        (root / "data").mkdir()
        yield root
    finally:
        shutil.rmtree(root)


def records_of(files: Files) -> set[tuple[str, Entry]]:
    return {(name, entry) for name, entries in files.items() for entry in entries}


@pytest.mark.parametrize("name", KINDS)
@given(changed=changes(), seed=st.integers(0, 5))
@settings(max_examples=settings().max_examples // 8)
def test_a_change_makes_new_what_differs(name: str, changed: tuple[Files, Files], seed: int) -> None:
    kind, (before, after) = KINDS[name], changed
    with workplace() as root:
        source = {"uri": f"{root}/data/*{kind.ending}", **kind.source}
        spec, later = spec_of(source), spec_of(source, version="v2", parent="v1")
        registry, fresh = Registry(Store(f"{root}/store")), Registry(Store(f"{root}/fresh"))
        write_files(root / "data", kind, before, 0)
        assert freeze(registry, spec) == [""]
        _, contents = fetch(registry, spec)
        assert set(contents.values()) == {
            content_hash(entry.content.encode()) for _, entry in records_of(before)
        }
        altered = {file: entries for file, entries in after.items() if entries != before[file]}
        write_files(root / "data", kind, altered, seed)
        assert freeze(registry, later) == freeze(fresh, spec_of(source, version="v2")) == [""]

        # The rows that the version has anew are the records that differ.
        differing = records_of(after) - records_of(before)
        assert len(identities(registry, later) - identities(registry, spec)) == len(differing)
        report, found = fetch(registry, later)
        held = {(file, entry.content) for file, entry in records_of(before)}
        assert report.computed == len({(file, entry.content) for file, entry in differing} - held)
        assert report.failed == 0

        # And the version equals one that was listed and fetched whole.
        by_key = [sorted(list_samples(each, later), key=lambda row: row["key"]) for each in (registry, fresh)]
        assert by_key[0] == by_key[1]
        assert digest_of(registry, later) == digest_of(fresh, later)
        assert found == fetch(fresh, later)[1]
        ids = {entry.id: content_hash(entry.content.encode()) for _, entry in records_of(after)}
        assert {key.rpartition("/")[2].removesuffix(".bin"): value for key, value in found.items()} == ids


@given(changed=changes())
@settings(max_examples=settings().max_examples // 4)
def test_records_without_ids_are_numbered_as_in_a_whole_listing(changed: tuple[Files, Files]) -> None:
    """Equal contents get numbers in the order of the files, whether these are read or not."""
    kind, (before, after) = replace(KINDS["jsonl"], source={"record": {"text": "text"}}), changed
    with workplace() as root:
        source = {"uri": f"{root}/data/*{kind.ending}", **kind.source}
        registry, fresh = Registry(Store(f"{root}/store")), Registry(Store(f"{root}/fresh"))
        write_files(root / "data", kind, before, 0)
        freeze(registry, spec_of(source))
        write_files(root / "data", kind, {file: e for file, e in after.items() if e != before[file]}, 0)
        later = spec_of(source, version="v2")  # without a parent: the last listing serves
        freeze(registry, later)
        freeze(fresh, later)
        rows = [sorted(list_samples(each, later), key=lambda row: row["key"]) for each in (registry, fresh)]
        assert rows[0] == rows[1]


def test_unchanged_files_are_not_opened(
    registry: Registry, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm_resources.sources.lines import JsonLines

    for name in NAMES:
        jsonl(data / f"{name}.jsonl", [Entry(f"{name}{i}", f"text {name}{i}", "owl") for i in range(3)], 0)
    source = {"uri": f"{data}/*.jsonl", "record": TEXT}
    freeze(registry, spec_of(source))
    jsonl(data / "y.jsonl", [Entry("y0", "another text", "owl")], 0)
    opened: list[str] = []
    records = JsonLines.records

    def watch(self: JsonLines, uri: str) -> Any:
        opened.append(uri.rpartition("/")[2])
        return records(self, uri)

    monkeypatch.setattr(JsonLines, "records", watch)
    later = spec_of(source, version="v2", parent="v1")
    assert freeze(registry, later) == [""]
    assert opened == ["y.jsonl"]
    assert len(list_samples(registry, later)) == 7
    opened.clear()
    # Another mapping lists other rows of the same files.
    renamed = {**source, "record": {"text": "label", "id": "id"}}
    assert freeze(registry, spec_of(renamed, version="v3", parent="v2")) == [""]
    assert opened == ["x.jsonl", "y.jsonl", "z.jsonl"]


def test_a_listing_that_lost_rows_is_not_handed_on(registry: Registry, data: Path) -> None:
    """What was forgotten in the earlier version is listed, and refused by its content, as in any other version."""
    from mm_resources.storage import lance_datasets

    jsonl(data / "x.jsonl", [Entry("a", "one", "owl"), Entry("b", "two", "owl")], 0)
    source = {"uri": f"{data}/*.jsonl", "record": TEXT}
    spec = spec_of(source)
    freeze(registry, spec)
    lance_datasets.delete(registry.store.uri("registry/listings/birds/v1/s0.lance"), "key", ["a"])
    assert len(list_samples(registry, spec)) == 1
    later = spec_of(source, version="v2", parent="v1")
    freeze(registry, later)
    assert len(list_samples(registry, later)) == 2


def test_refused_records_keep_their_names(registry: Registry, data: Path) -> None:
    bad = '{"id": 3, "text": \n["a list"]\n{"label": "no text"}\n'
    path = data / "x.jsonl"
    path.write_text(bad)
    source = {"uri": str(path), "record": TEXT}
    freeze(registry, spec_of(source))
    path.write_text('{"id": "new", "text": "a line in front"}\n' + bad)
    later = spec_of(source, version="v2", parent="v1")
    freeze(registry, later)
    rows = [
        {row["sample_id"]: row["error_class"] for row in list_samples(registry, spec)}
        for spec in (spec_of(source), later)
    ]
    assert sorted(rows[0].values()) == ["bad_record", "bad_record", "missing_field"]
    assert rows[0].items() <= rows[1].items()
    assert len(identities(registry, later) - identities(registry, spec_of(source))) == 1


@pytest.mark.parametrize("name", ["jsonl", "parquet", "tar", "zip"])
def test_a_file_that_changes_before_it_is_fetched_is_told(
    name: str, registry: Registry, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = KINDS[name]
    entries = [Entry(f"e{i}", f"text {i}", "owl") for i in range(3)]
    kind.write(data / f"x{kind.ending}", entries, 0)
    spec = spec_of({"uri": f"{data}/*{kind.ending}", **kind.source})
    freeze(registry, spec)
    swapped = [entries[0], replace(entries[1], content="TEXT 1"), entries[2]]
    kind.write(data / f"x{kind.ending}", swapped, 0)
    report, found = fetch(registry, spec)
    assert (report.failed, found) == (3, {})  # by its tag
    # A source without tags, such as some web servers: by the bytes.
    monkeypatch.setattr(Source, "tag", lambda *_: None)
    for kind_of in (type(each) for each in _opened(spec)):
        monkeypatch.setattr(kind_of, "tag", lambda *_: None)
    report, found = fetch(registry, spec)
    assert report.computed == 3  # what has failed is tried again
    assert set(found.values()) == {content_hash(b"text 0"), content_hash(b"text 2")}
    failed = (
        ComputeCache(registry.store).space(FetchKernel(spec, BlobStore(registry.store))).reader().read_all()
    )
    (row,) = [row for row in failed.to_pylist() if row["status"] == "failed"]
    assert (row["error_class"], row["retryable"]) == ("source_changed", True)


def test_listings_of_before_keep_their_keys(registry: Registry, data: Path) -> None:
    """A listing that was frozen before contents were hashed has no such column: its records are known by place and tag."""
    import lance

    jsonl(data / "x.jsonl", [Entry("a", "one", "owl")], 0)
    spec = spec_of({"uri": f"{data}/*.jsonl", "record": TEXT})
    freeze(registry, spec)
    (new,) = list_samples(registry, spec)
    uri = registry.store.uri("registry/listings/birds/v1/s0.lance")
    lance.dataset(uri).drop_columns(["content_hash"])
    (row,) = list_samples(registry, spec)
    assert row == {**new, "content_hash": None}
    kernel = FetchKernel(spec, BlobStore(registry.store))
    requests = sql.fetch(
        REQUESTS, listing=registry.listings.listing(spec, "text"), flavours=kernel.flavours()
    )
    place = "\x1f".join(
        ["jsonl:text", f"{data}/x.jsonl", f"0+{(data / 'x.jsonl').stat().st_size}", row["tag"]]
    )
    assert requests["key"].to_pylist() == [hashlib.sha256(place.encode()).hexdigest()]
    assert fetch(registry, spec)[1] == {"a": content_hash(b"one")}


def test_a_lance_dataset_that_grew_makes_new_what_was_added(registry: Registry, data: Path) -> None:
    import lance

    entries = [Entry(f"e{i}", f"text {i}", "owl") for i in range(5)]
    lance.write_dataset(table_of(entries[:4], "text"), f"{data}/rows.lance")
    source = {"uri": f"{data}/rows.lance", "record": TEXT}
    freeze(registry, spec_of(source))
    assert fetch(registry, spec_of(source))[0].computed == 4
    dataset = lance.dataset(f"{data}/rows.lance")
    dataset.delete("id = 'e0'")
    lance.write_dataset(table_of(entries[4:], "text"), f"{data}/rows.lance", mode="append")
    later = spec_of(source, version="v2", parent="v1")
    freeze(registry, later)
    report, found = fetch(registry, later)
    assert (report.computed, set(found)) == (1, {"e1", "e2", "e3", "e4"})
    assert len(identities(registry, later) - identities(registry, spec_of(source))) == 1


def _opened(spec: DatasetSpec) -> list[Source]:
    from mm_resources.sources import open_source

    return [open_source(source, {}) for source in spec.sources]
