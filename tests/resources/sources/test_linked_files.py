"""Tables whose records point to what is fetched: URLs, and paths beside the table."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.compute.cache import ComputeCache
from mm_resources.compute.retry_policy import Backoff
from mm_resources.compute.runner import KernelRunner
from mm_resources.ingestion.fetch_kernel import FetchKernel
from mm_resources.registry.registry import Registry
from mm_resources.sources import Listed, Source, open_source
from mm_resources.storage.store import Store
from tests.resources.server import Server, cut_off, redirect, stall, status
from tests.resources.specs import freeze, list_samples, spec_of

RECORD = {"url": "url", "id": "id", "label": "label", "link": "link"}
LOCAL = {"allow_private": ["127.0.0.2/32"], "requests_per_second": None}


pytestmark = pytest.mark.usefixtures("brisk")


def source_of(uri: str, record: dict[str, str] | None = None, **fetch: Any) -> Source:
    return open_source(
        SourceSpec(
            name="s", modality="image", uri=uri, record=record or {"url": "url"}, fetch={**LOCAL, **fetch}
        ),
        {},
    )


def table(folder: Path, *references: str, name: str = "list.csv") -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerows([["url"], *([reference] for reference in references)])
    (folder / name).write_text(text.getvalue(), "utf-8")
    return str(folder / name)


def outcome(source: Source, item: Listed) -> bytes | str:
    if item.error:
        return item.error.error_class
    try:
        found = source.fetch(item.uri, item.locator)
    except SampleError as error:
        return error.error_class
    return found if isinstance(found, bytes) else found.read()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_list_of_urls(web: Server, tmp_path: Path, kind: str) -> None:
    web.bodies.update({"/a.jpg": b"a", "/b.jpg": b"bb"})
    rows = [
        {"url": f"{web.url}/{name}.jpg", "id": f"id-{name}", "label": "x", "link": f"entity-{name}"}
        for name in "ab"
    ]
    path = tmp_path / f"list.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    source = source_of(str(path), RECORD)
    items = list(source.list())
    assert [(item.key, item.uri, item.label, item.link) for item in items] == [
        (row["id"], row["url"], row["label"], row["link"]) for row in rows
    ]
    assert [(item.size, bool(item.tag), item.error) for item in items] == [(1, True, None), (2, True, None)]
    assert web.asked == {"HEAD /a.jpg": 1, "HEAD /b.jpg": 1}
    assert [outcome(source, item) for item in items] == [b"a", b"bb"]
    assert source.single_object
    assert list(source.objects()) == [(item.uri, item.tag) for item in items]


def test_urls_without_ids_are_their_own_keys(web: Server, tmp_path: Path) -> None:
    source = source_of(table(tmp_path, f"{web.url}/a", f"{web.url}/b", f"{web.url}/a"), tags=False)
    assert [item.key for item in source.list()] == [f"{web.url}/a", f"{web.url}/b", f"{web.url}/a#2"]
    assert web.asked.total() == 0


def test_each_url_has_its_own_status(web: Server, other: Server, tmp_path: Path) -> None:
    other.bodies["/private"] = b"secret"
    web.bodies.update({"/good": b"good", "/flaky": b"flaky", "/broken": b"unbroken", "/large": b"x" * 1000})
    web.faults.update(
        {"/flaky": [status(500), status(429, Retry_After="0")], "/broken": [cut_off(b"unbroken", 3)]}
    )
    web.answers.update(
        {
            "/gone": status(410),
            "/down": status(503),
            "/stalled": stall(5),
            "/hop": redirect(f"{other.url}/private"),
        }
    )
    expected: dict[str, bytes | str] = {
        f"{web.url}/good": b"good", f"{web.url}/flaky": b"flaky", f"{web.url}/broken": b"unbroken", f"{web.url}/gone": "http_410",
        f"{web.url}/none": "http_404", f"{web.url}/down": "http_503", f"{web.url}/stalled": "timeout", f"{web.url}/large": "too_large",
        f"{web.url}/hop": "refused_address", f"{other.url}/private": "refused_address", "http://169.254.169.254/x": "refused_address",
        "http://user:secret@example.org/a": "bad_url", "http:///a": "bad_url", "ftp://127.0.0.1/a": "refused_address",
        "zip://a::http://127.0.0.1/a.zip": "refused_address", "smb://host/a": "refused_address", "": "bad_url", "a\nb": "bad_url",
    }  # fmt: skip
    source = source_of(table(tmp_path, *expected), max_bytes=999, timeout_s=1, retries=2)
    items = list(source.list())
    assert [outcome(source, item) for item in items] == list(expected.values())
    assert other.asked.total() == 0
    assert all("secret" not in str(item.error) for item in items)


def test_paths_are_relative_to_the_list(tmp_path: Path) -> None:
    (tmp_path / "data" / "photos").mkdir(parents=True)
    (tmp_path / "data" / "photos" / "1.jpg").write_bytes(b"one")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "data" / "inner").symlink_to("photos")
    (tmp_path / "data" / "outer").symlink_to(tmp_path)
    (tmp_path / "data" / "leaf").symlink_to(tmp_path / "secret")
    expected: dict[str, bytes | str] = {
        "photos/1.jpg": b"one", "./photos/../photos/1.jpg": b"one", f"{tmp_path}/data/photos/1.jpg": b"one",
        f"file://{tmp_path}/data/photos/1.jpg": b"one", "inner/1.jpg": b"one", "photos/2.jpg": "not_found", "photos": "not_a_file",
        "../secret": "path_escape", f"{tmp_path}/secret": "path_escape", "/etc/passwd": "path_escape", "file:///etc/passwd": "path_escape",
        "outer/secret": "path_escape", "leaf": "path_escape",
    }  # fmt: skip
    path = table(tmp_path / "data", *expected)
    source = source_of(path)
    items = list(source.list())
    assert dict(zip(expected, (outcome(source, item) for item in items), strict=True)) == expected
    assert [item.tag for item in items[:3]] == [items[0].tag] * 3
    trusting = source_of(path, allow_private=True)
    assert [outcome(trusting, item) for item in trusting.list()][7:9] == [b"secret", b"secret"]


def test_a_list_behind_a_url(web: Server, tmp_path: Path) -> None:
    """Its paths are URLs beside it; a path on this machine's disk is none of its business."""
    web.bodies["/lists/list.csv"] = b"url\nphotos/1.jpg\n/top.jpg\nfile:///etc/passwd\n"
    web.bodies.update({"/lists/photos/1.jpg": b"one", "/top.jpg": b"top"})
    source = source_of(f"{web.url}/lists/list.csv")
    items = list(source.list())
    assert [outcome(source, item) for item in items] == [b"one", b"top", "http_404"]


def test_a_list_in_a_bucket() -> None:
    import fsspec

    fs = fsspec.filesystem("memory")
    fs.pipe_file(
        "/lists-1/a/list.csv",
        b"url\n1.jpg\n../2.jpg\n/lists-1/a/1.jpg\nmemory://lists-1/a/1.jpg\nmemory://lists-2/x\n",
    )
    fs.pipe_file("/lists-1/a/1.jpg", b"one")
    source = source_of("memory://lists-1/a/list.csv")
    found = [outcome(source, item) for item in source.list()]
    assert found == [b"one", "path_escape", "path_escape", b"one", "refused_address"]
    fs.rm("/lists-1", recursive=True)


def test_lists_by_glob(web: Server, tmp_path: Path) -> None:
    web.bodies.update({f"/{i}": str(i).encode() for i in range(4)})
    table(tmp_path, f"{web.url}/0", f"{web.url}/1", name="a.csv")
    table(tmp_path, f"{web.url}/2", f"{web.url}/3", name="b.csv")
    source = source_of(f"{tmp_path}/*.csv")
    assert [outcome(source, item) for item in source.list()] == [b"0", b"1", b"2", b"3"]


def test_a_record_without_its_url(tmp_path: Path) -> None:
    (tmp_path / "list.jsonl").write_text('{"url": 5}\n{"uri": "http://a/b"}\n{"url": "\\ud800"}\n{oops\n')
    found = [
        item.error.error_class if item.error else None for item in source_of(f"{tmp_path}/list.jsonl").list()
    ]
    assert found == ["schema_mismatch", "missing_field", "encoding_unknown", "bad_record"]


# -- through the fetch cache


def run(spec: DatasetSpec, store: Store) -> tuple[int, dict[str, tuple[str, str | None, bool]]]:
    """(how many were computed, url -> status, cause, retryable) as an ingest does it."""
    kernel, source = FetchKernel(spec, BlobStore(store)), spec.sources[0]
    rows = [
        {
            "key": f"{kernel.flavours()['flavour'][0]}|{item.uri}|{item.tag}", "source": source.name, "source_uri": item.uri,
            "locator": item.locator, "tag": item.tag, "size": item.size,
        }
        for item in open_source(source, {}).list()
        if item.error is None
    ]  # fmt: skip
    compute = KernelRunner(ComputeCache(store), backoff=Backoff(attempts=2, seconds=0.001))
    report = compute.run(kernel, pa.Table.from_pylist(rows))
    found = compute.cache.space(kernel).reader().read_all().to_pylist()
    return report.computed, {
        row["key"].split("|")[1]: (row["status"], row["error_class"], row["retryable"]) for row in found
    }


def test_an_unchanged_url_is_not_read_again(web: Server, tmp_path: Path) -> None:
    web.bodies.update({"/a": b"a", "/b": b"b"})
    uri, store = table(tmp_path, f"{web.url}/a", f"{web.url}/b"), Store(str(tmp_path / "store"))
    spec = spec_of({"uri": uri, "record": {"url": "url"}, "fetch": LOCAL})
    assert run(spec, store)[0] == 2
    assert run(spec, store)[0] == 0
    web.bodies["/b"] = b"new"
    assert run(spec, store)[0] == 1
    assert (web.asked["GET /a"], web.asked["GET /b"]) == (1, 2)
    table(tmp_path, f"{web.url}/b", f"{web.url}/a")  # another order, another list
    assert run(spec, store)[0] == 0


def test_causes_that_stay_are_not_tried_again_until_the_limits_change(web: Server, tmp_path: Path) -> None:
    web.bodies.update({"/a": b"a" * 100})
    web.answers.update({"/down": status(503), "/gone": status(404)})
    uri, store = (
        table(tmp_path, *(f"{web.url}/{name}" for name in ("a", "down", "gone"))),
        Store(str(tmp_path / "store")),
    )

    def spec(**fetch: Any) -> DatasetSpec:
        return spec_of({"uri": uri, "record": {"url": "url"}, "fetch": {**LOCAL, "retries": 0, **fetch}})

    computed, found = run(spec(max_bytes=50), store)
    assert (computed, found) == (3, {
        f"{web.url}/a": ("failed", "too_large", False), f"{web.url}/down": ("failed", "http_503", True),
        f"{web.url}/gone": ("failed", "http_404", False),
    })  # fmt: skip
    assert run(spec(max_bytes=50), store)[0] == 1
    computed, found = run(spec(max_bytes=200), store)
    assert (computed, found[f"{web.url}/a"][0]) == (3, "ok")


def test_a_url_that_changed_after_the_listing(web: Server, tmp_path: Path) -> None:
    web.bodies.update({"/a": b"a"})
    store = Store(str(tmp_path / "store"))
    spec = spec_of({"uri": table(tmp_path, f"{web.url}/a"), "record": {"url": "url"}, "fetch": LOCAL})
    (item,) = open_source(spec.sources[0], {}).list()
    web.bodies["/a"] = b"b"
    kernel = FetchKernel(spec, BlobStore(store))
    rows = [{"key": "k", "source": "s0", "source_uri": item.uri, "locator": "", "tag": item.tag, "size": 1}]
    compute = KernelRunner(ComputeCache(store))
    compute.run(kernel, pa.Table.from_pylist(rows))
    (row,) = compute.cache.space(kernel).reader().read_all().to_pylist()
    assert (row["error_class"], row["retryable"]) == ("source_changed", True)


def test_as_many_at_once_as_the_spec_says(web: Server, tmp_path: Path) -> None:
    import threading

    together, at_once = threading.Barrier(6), 0

    def wait(handler: Any) -> None:
        nonlocal at_once
        together.wait(timeout=10)  # breaks unless six are under way
        at_once += 1
        handler.answer(200, handler.path.encode())

    web.answers.update({f"/{i}": wait for i in range(6)})
    uri, store = table(tmp_path, *(f"{web.url}/{i}" for i in range(6))), Store(str(tmp_path / "store"))
    _, found = run(
        spec_of(
            {
                "uri": uri,
                "record": {"url": "url"},
                "fetch": {**LOCAL, "concurrency": 6, "tags": False, "retries": 0},
            }
        ),
        store,
    )
    assert {status for status, _, _ in found.values()} == {"ok"}
    assert at_once == 6


def test_what_may_pass_later_is_not_frozen(web: Server, registry: Registry, tmp_path: Path) -> None:
    web.bodies["/a"] = b"a sentence"
    web.answers.update({"/down": status(503), "/gone": status(410)})
    uri = table(tmp_path, *(f"{web.url}/{name}" for name in ("a", "down", "gone")))
    spec = spec_of(
        {"uri": uri, "modality": "auto", "record": {"url": "url"}, "fetch": {**LOCAL, "retries": 0}}
    )
    assert freeze(registry, spec) == [""]
    causes = {
        row["source_uri"].rpartition("/")[2]: row["error_class"] for row in list_samples(registry, spec)
    }
    assert causes == {"a": None, "down": None, "gone": "http_410"}
