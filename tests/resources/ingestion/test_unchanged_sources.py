"""A source that does not change lists the same twice and has no drift, whatever it holds."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mm_resources.registry.registry import Registry
from mm_resources.sources import Listed, open_source
from tests.resources.places import bucket
from tests.resources.server import Server
from tests.resources.sources.test_web_datasets import write_tar
from tests.resources.specs import freeze, list_samples, spec_of
from tests.s3 import BUCKET, S3

SCHEMA = {"score": "float", "seen": "timestamp", "note": "string"}
RECORD = {"text": "text", "id": "id", "label": "label", "link": "link", "group": "group"}
words = st.none() | st.sampled_from(["nan", "NaN", "", "x", "Käse", "#2", "2024-01-02"])
floats = st.none() | st.floats(width=64) | st.sampled_from([0.1, 1e16, 5e-324, -0.0])
rows = st.lists(
    st.fixed_dictionaries(
        {
            "id": words,
            "text": st.text("ab\U0001f9c0", max_size=3),
            "label": floats,
            "link": words,
            "group": floats,
            "score": floats,
            "seen": st.none() | st.datetimes(datetime(1700, 1, 1), datetime(2200, 1, 1)),
            "note": words,
        }
    ),
    min_size=1,
    max_size=8,
)
TYPES = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "text", "link", "note")),
        *((name, pa.float64()) for name in ("label", "group", "score")),
        ("seen", pa.timestamp("us")),
    ]
)
Rows = list[dict[str, Any]]


def table(rows: Rows) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=TYPES)


def as_text(rows: Rows) -> Rows:
    return [{**row, "seen": row["seen"] and row["seen"].isoformat()} for row in rows]


def as_jsonl(folder: Path, rows: Rows) -> None:
    (folder / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in as_text(rows)))


def as_csv(folder: Path, rows: Rows) -> None:
    import csv

    with (folder / "r.csv").open("w", newline="", encoding="utf-16") as stream:
        writer = csv.DictWriter(stream, TYPES.names)
        writer.writeheader()
        writer.writerows(as_text(rows))


def as_parquet(folder: Path, rows: Rows) -> None:
    parquet.write_table(table(rows), folder / "r.parquet", row_group_size=3)


def as_arrow(folder: Path, rows: Rows) -> None:
    with pa.OSFile(str(folder / "r.arrow"), "wb") as sink, pa.ipc.new_stream(sink, TYPES) as writer:
        writer.write_table(table(rows), max_chunksize=3)


def as_lance(folder: Path, rows: Rows) -> None:
    import lance

    lance.write_dataset(table(rows), str(folder / "r.lance"))


def as_side_table(folder: Path, rows: Rows) -> None:
    parquet.write_table(table(rows), folder / "side.parquet")
    (folder / "data").mkdir()
    for name in {row["id"] for row in rows} - {None, ""} | {"nan", "other"}:
        (folder / "data" / name).write_text(name)


def parts_of(rows: Rows) -> list[tuple[str, bytes]]:
    contents = [(f"{i}.txt", row["text"].encode()) for i, row in enumerate(rows)]
    return contents + [(f"{i}.json", json.dumps(row).encode()) for i, row in enumerate(as_text(rows))]


def as_tar(folder: Path, rows: Rows) -> None:
    write_tar(folder / "0.tar", parts_of(rows))
    write_tar(folder / "1.tar")


def as_zip(folder: Path, rows: Rows) -> None:
    for name, parts in (("0.zip", parts_of(rows)), ("1.zip", [])):
        with zipfile.ZipFile(folder / name, "w") as out:
            for member, data in parts:
                out.writestr(member, data)


def as_files(folder: Path, rows: Rows) -> None:
    for i, row in enumerate(rows):
        (folder / f"{i % 3}").mkdir(exist_ok=True)
        (folder / f"{i % 3}" / f"{i}.txt").write_text(row["text"])
    (folder / "dangling.txt").symlink_to("nowhere")


KINDS: dict[str, tuple[Callable[[Path, Rows], None], dict[str, Any]]] = {
    "jsonl": (as_jsonl, {"uri": "r.jsonl", "record": RECORD}),
    "csv": (as_csv, {"uri": "r.csv", "record": RECORD}),
    "parquet": (as_parquet, {"uri": "r.parquet", "record": RECORD}),
    "arrow": (as_arrow, {"uri": "r.arrow", "record": RECORD}),
    "lance": (as_lance, {"uri": "r.lance", "record": RECORD}),
    "side table": (
        as_side_table,
        {
            "uri": "data",
            "table": {"uri": "side.parquet", "key": "id", "columns": ["label", "link", "group", *SCHEMA]},
        },
    ),
    "tar": (as_tar, {"uri": "*.tar", "members": "*.txt"}),
    "zip": (as_zip, {"uri": "*.zip", "members": "*.txt"}),
    "files": (as_files, {"uri": "**/*.txt", "label": {"from": "parent_dir"}}),
}


def described(item: Listed) -> str:
    """A sample as text: NaN would be unequal to itself."""
    return repr(item)


def check(registry: Registry, root: str, source: dict[str, Any]) -> list[dict[str, Any]]:
    given = {**source, "uri": f"{root}/{source['uri']}"}
    if "table" in source:
        given["table"] = {**source["table"], "uri": f"{root}/{source['table']['uri']}"}
    spec = spec_of(given, schema=SCHEMA, version=f"v{uuid4().hex[:8]}")
    first, second = (
        [described(item) for item in open_source(spec.sources[0], dict(spec.schema_)).list()]
        for _ in range(2)
    )
    assert first == second
    assert freeze(registry, spec) == [""]
    drifts = [registry.drifts.check(spec, spec.sources[0]) for _ in range(2)]
    assert [str(drift) for drift in drifts] == ["", ""]
    assert drifts[0].state == drifts[1].state
    assert drifts[1].is_settled(timedelta(0))
    frozen = list_samples(registry, spec)
    if not source["uri"].endswith(".csv"):  # where it is a word
        assert "nan" not in {row["label"] for row in frozen} | {row["group"] for row in frozen}
    assert all(row["user__score"] is None or row["user__score"] == row["user__score"] for row in frozen)
    return frozen


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=rows)
def test_unchanged_sources(registry: Registry, tmp_path: Path, kind: str, rows: Rows) -> None:
    write, source = KINDS[kind]
    folder = tmp_path / uuid4().hex
    folder.mkdir()
    write(folder, rows)
    frozen = check(registry, str(folder), source)
    # Equal rows in another file, in another order, are the same samples.
    again = tmp_path / uuid4().hex
    again.mkdir()
    write(again, rows)
    assert [row["sample_id"] for row in check(registry, str(again), source)] == [
        row["sample_id"] for row in frozen
    ]


NOTES: Rows = [
    {**dict.fromkeys(TYPES.names), "id": "1", "text": "a", "label": float("nan"), "score": 0.1},
    {**dict.fromkeys(TYPES.names), "text": "b", "seen": datetime(2024, 1, 2, 3, 4, 5, 6)},
]


@pytest.mark.parametrize("kind", [name for name in KINDS if name != "lance"])
def test_unchanged_sources_in_a_bucket(registry: Registry, tmp_path: Path, s3: S3, kind: str) -> None:
    write, source = KINDS[kind]
    write(tmp_path, NOTES)
    root = f"s3://{BUCKET}/{uuid4().hex}"
    for folder, _, names in os.walk(tmp_path):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and "store" not in path.parts:
                bucket().pipe_file(f"{root}/{path.relative_to(tmp_path)}", path.read_bytes())
    assert check(registry, root, source)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "tar"])
@pytest.mark.parametrize("etags", [True, False])
def test_unchanged_sources_behind_urls(
    registry: Registry, tmp_path: Path, web: Server, kind: str, etags: bool
) -> None:
    write, source = KINDS[kind]
    write(tmp_path, NOTES)
    for path in tmp_path.iterdir():
        if path.is_file():
            web.bodies[f"/{path.name}"] = path.read_bytes()
    web.etags = etags
    uri = {"tar": "{0..1}.tar"}.get(kind, source["uri"])
    assert check(registry, web.url, {**source, "uri": uri, "fetch": {"allow_private": True}})


def test_records_in_a_file_that_cannot_be_listed(registry: Registry, tmp_path: Path) -> None:
    """A dangling link and a pipe are failed samples; looking for drift opens neither."""
    folder = tmp_path / "data"
    folder.mkdir()
    as_jsonl(folder, NOTES)
    (folder / "dangling.jsonl").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.jsonl")
    (folder / os.fsdecode(b"caf\xe9.jsonl")).write_bytes(b'{"text": "a"}\n')
    frozen = check(registry, str(folder), {"uri": "*.jsonl", "record": RECORD})
    assert {row["error_class"] for row in frozen} == {None, "not_found", "not_a_file", "bad_name"}
