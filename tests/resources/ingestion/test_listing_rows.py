"""Lists of strangers: one odd row, name, label or bucket costs itself, and is named."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mm_embed_kernels import sql
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.runner import KernelRunner
from mm_resources.ingestion.fetch_kernel import REQUESTS, FetchKernel
from mm_resources.registry.registry import Registry
from mm_resources.storage.secret_table import SecretTable, split_locator
from tests.resources.server import Server
from tests.resources.specs import freeze, list_samples, spec_of

LOCAL = {"allow_private": ["127.0.0.2/32"], "requests_per_second": None, "retries": 0}


def fetched(registry: Registry, spec: Any) -> dict[str, str]:
    """Fetch a listing, and return content hash or error class by key."""
    kernel = FetchKernel(spec, BlobStore(registry.store))
    rows = registry.listings.listing(spec, "text").read_all()
    requests = sql.fetch(REQUESTS, listing=rows, flavours=kernel.flavours())
    runner = KernelRunner(ComputeCache(registry.store))
    runner.run(kernel, requests)
    found = {row["key"]: row for row in runner.cache.space(kernel).reader().read_all().to_pylist()}
    names = dict(zip(requests["sample_id"].to_pylist(), requests["key"].to_pylist(), strict=True))
    return {
        row["key"]: found[names[row["sample_id"]]]["error_class"] or found[names[row["sample_id"]]]["status"]
        for row in rows.to_pylist()
        if row["sample_id"] in names
    }


def write_csv(folder: Path, *urls: str) -> dict[str, Any]:
    (folder / "list.csv").write_text("\n".join(["url", *urls]) + "\n")
    return {"uri": str(folder / "list.csv"), "record": {"url": "url"}}


def test_a_bucket_costs_its_own_row(
    registry: Registry, data: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not allowed, without credentials, without the package of its scheme."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    web.bodies["/a.txt"] = b"a text"
    source = write_csv(data, "s3://mine/x", "s3://other/x", "oss://mine/x", f"{web.url}/a.txt")
    spec = spec_of({**source, "fetch": {**LOCAL, "allow": ["s3://mine/", "oss://mine/"]}})
    assert freeze(registry, spec) == [""]
    rows = {row["key"]: row for row in list_samples(registry, spec)}
    assert {key: row["error_class"] for key, row in rows.items()} == {
        "s3://mine/x": None,
        "s3://other/x": "refused_address",
        "oss://mine/x": None,
        f"{web.url}/a.txt": None,
    }
    assert "allow: [s3://other/]" in rows["s3://other/x"]["message"]
    assert fetched(registry, spec) == {
        "s3://mine/x": "fetch_error",
        "oss://mine/x": "fetch_error",
        f"{web.url}/a.txt": "ok",
    }


@pytest.mark.parametrize(
    ("uri", "allowed"),
    [
        ("s3://mine/a", True),
        ("s3a://mine/a", True),
        ("S3://mine/a/b", True),
        ("s3://mine-too/a", False),
        ("s3://min", False),
        ("s3://mine/../other/a", False),
        ("gs://mine/a", False),
        ("gs://g/photos/a", True),
        ("gcs://g/photos/a", True),
        ("gs://g/photos2/a", False),
    ],
)
def test_what_a_list_may_name(uri: str, allowed: bool) -> None:
    assert FetchPolicy(allow=("s3://mine", "gs://g/photos/")).allows(uri) is allowed


def test_long_and_odd_fields_cost_their_own_row(registry: Registry, data: Path) -> None:
    deep: Any = "x"
    for _ in range(400):
        deep = [deep]
    lines = [
        {"text": "one", "id": "good", "label": "x"},
        {"text": "two", "id": "k" * 20_000, "label": "x"},
        {"text": "three", "id": "long label", "label": "l" * 20_000},
        {"text": "four", "id": "long column", "label": "x", "note": "n" * (2 << 20)},
        {"text": "five", "id": "deep", "label": "x", "note": deep},
        {"text": "six", "id": "surrogate", "label": "x", "note": "\ud800"},
        {"text": "seven", "id": "last", "label": "x", "note": "fine"},
    ]
    text = "\n".join(map(json.dumps, lines)) + '\n{"text": ' + "[" * 100_000 + "\n"
    (data / "t.jsonl").write_text(text)
    record = {"text": "text", "id": "id", "label": "label"}
    spec = spec_of({"uri": str(data / "t.jsonl"), "record": record}, schema={"note": "string"})
    assert freeze(registry, spec) == [""]
    rows = list_samples(registry, spec)
    assert all(len(row["key"]) < 10_000 for row in rows)
    by_key = {row["key"][:11]: row["error_class"] for row in rows}
    assert by_key == {
        "good": None,
        "k" * 11: "bad_name",
        "long label": "schema_mismatch",
        "long column": "schema_mismatch",
        "deep": by_key["deep"],
        "surrogate": "schema_mismatch",
        "last": None,
        next(key for key in by_key if key.startswith("record-")): "bad_record",
    }


def test_a_row_that_python_cannot_hold_costs_itself(registry: Registry, data: Path) -> None:
    broken = pa.array([b"ok", b"\xff\xfe", b"ok"]).view(pa.string())
    times = pa.array([0, 1, 568_971_820_800], pa.timestamp("s"))
    parquet.write_table(pa.table({"text": ["a", "b", "c"], "note": broken, "at": times}), data / "t.parquet")
    spec = spec_of({"uri": str(data / "t.parquet"), "record": {"text": "text"}}, schema={"note": "string"})
    assert freeze(registry, spec) == [""]
    # The time of the third row is in a column that the spec does not name, and not read.
    assert [row["error_class"] for row in list_samples(registry, spec)] == [None, "bad_record", None]


def test_a_file_and_a_folder_that_cannot_be_read_cost_themselves(
    registry: Registry, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mm_resources.sources.lines import JsonLines

    (data / "a.jsonl").write_text('{"text": "one"}\n')
    (data / "b.jsonl").write_text('{"text": "two"}\n')
    opened = JsonLines._open_new

    def refuse(self: JsonLines, uri: str) -> Any:
        if uri.endswith("b.jsonl"):
            raise PermissionError(13, "Permission denied", uri)
        return opened(self, uri)

    monkeypatch.setattr(JsonLines, "_open_new", refuse)
    spec = spec_of({"uri": f"{data}/*.jsonl", "record": {"text": "text"}})
    assert freeze(registry, spec) == [""]
    assert [row["error_class"] for row in list_samples(registry, spec)] == [None, "permission_denied"]
    # A source of which nothing can be read is not frozen, so that it is listed when it can be.
    alone = spec_of({"uri": f"{data}/b.jsonl", "record": {"text": "text"}}, version="v2")
    assert "cannot be listed" in freeze(registry, alone)[0]


def test_a_field_that_a_row_of_a_side_table_lacks_is_null(registry: Registry, data: Path) -> None:
    lines = [{"file": "a.txt", "note": "x"}, {"file": "b.txt"}, {"file": "c.txt", "note": "z"}]
    (data / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    table = {"uri": str(data / "t.jsonl"), "key": "file", "columns": ["note"]}
    spec = spec_of({"uri": f"{data}/*.txt", "table": table}, schema={"note": "string"})
    assert freeze(registry, spec) == [""]
    rows = {row["key"]: (row["user__note"], row["error_class"]) for row in list_samples(registry, spec)}
    assert rows == {"a.txt": ("x", None), "b.txt": (None, None), "c.txt": ("z", None)}


def test_rows_without_secrets_are_as_before(registry: Registry, data: Path, web: Server) -> None:
    urls = [f"{web.url}/a.txt?id=1&size=L#top", f"{web.url}/b.txt?key=x/y.txt", "c.txt"]
    spec = spec_of({**write_csv(data, *urls), "fetch": LOCAL})
    assert freeze(registry, spec) == [""]
    rows = list_samples(registry, spec)
    assert [row["key"] for row in rows] == urls
    assert [row["source_uri"] for row in rows] == [*urls[:2], str(data / "c.txt")]
    assert {row["locator"] for row in rows} == {""}
    assert registry.store.names("secrets") == []


def test_a_row_names_no_secret_of_the_spec(
    registry: Registry, data: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`${env:...}` in a list is text: otherwise a list could send any secret to its own server."""
    monkeypatch.setenv("MM_SECRET_A", "Hidden77")
    spec = spec_of({**write_csv(data, f"{web.url}/a?token=${{env:MM_SECRET_A}}&sig=Abc"), "fetch": LOCAL})
    assert freeze(registry, spec) == [""]
    fetched(registry, spec)
    assert all("Hidden77" not in str(asked) for asked in web.headers.values())
    (row,) = list_samples(registry, spec)
    (url,) = SecretTable(registry.store).reveal([split_locator(row["locator"])[1]]).values()
    assert "Hidden77" not in url
    for name in ("HOME", "PATH", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "Hidden78")
        refused = spec_of({"uri": f"{web.url}/a?token=${{env:{name}}}", "fetch": LOCAL}, version="v2")
        assert "MM_SECRET_" in registry.listings.freeze(refused, refused.sources[0])


def test_a_secret_from_a_file(
    registry: Registry, web: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text("Hidden79\n")
    monkeypatch.setenv("MM_SECRETS", str(tmp_path))
    web.bodies["/a.txt"] = b"a text"
    spec = spec_of({"uri": f"{web.url}/a.txt?token=${{file:token}}", "fetch": LOCAL})
    assert freeze(registry, spec) == [""]
    assert fetched(registry, spec) == {"a.txt": "ok"}
    (row,) = list_samples(registry, spec)
    assert row["source_uri"] == f"{web.url}/a.txt"
    for name in ("../token", "absent", "."):
        refused = spec_of({"uri": f"{web.url}/a.txt?token=${{file:{name}}}", "fetch": LOCAL}, version="v2")
        assert "cannot be listed" in registry.listings.freeze(refused, refused.sources[0])


def test_a_spec_with_a_literal_secret_is_stored_with_a_reference(registry: Registry, web: Server) -> None:
    spec = spec_of({"uri": f"{web.url}/a.txt?sig=Hidden80", "fetch": LOCAL})
    assert registry.register(spec)
    assert not registry.register(spec), "the same spec again"
    stored = registry.spec("birds", "v1").sources[0].uri
    assert stored.startswith(f"{web.url}/a.txt?sig=${{secret:")
    assert "Hidden80" not in str(registry.store.read("registry/datasets/birds/v1.json"))
