"""Globs over a bucket: s3fs against a server that lists in pages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.sax.saxutils import escape

import pytest

from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import open_source
from tests.resources.server import Handler, Server

PAGE = 3


@pytest.fixture
def bucket(web: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    """The bodies below ``/shelf`` as a bucket that answers ListObjectsV2, three keys a page."""
    from s3fs import S3FileSystem

    given = {
        "AWS_ENDPOINT_URL": web.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-test-1",
    }
    for name, value in {
        **given,
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    web.answers["/shelf"] = web.answers["/shelf/"] = pages
    S3FileSystem.clear_instance_cache()
    yield web
    S3FileSystem.clear_instance_cache()


def pages(handler: Handler) -> None:
    asked = {name: values[0] for name, values in parse_qs(urlsplit(handler.path).query).items()}
    prefix, delimiter, after = (
        asked.get("prefix", ""),
        asked.get("delimiter"),
        asked.get("continuation-token", ""),
    )
    bodies = {
        path.removeprefix("/shelf/"): body
        for path, body in handler.server.bodies.items()
        if path.startswith("/shelf/")
    }
    keys = sorted(
        key
        for key in bodies
        if key.startswith(prefix) and not (delimiter and delimiter in key[len(prefix) :])
    )
    page = [key for key in keys if key > after][:PAGE]
    more = bool(page) and page[-1] != keys[-1]
    listed = "".join(
        f"<Contents><Key>{escape(key)}</Key><ETag>&quot;{hash(bodies[key])}&quot;</ETag><Size>{len(bodies[key])}</Size>"
        "<LastModified>2020-09-13T12:26:40.000Z</LastModified></Contents>"
        for key in page
    )
    rest = (
        f"<IsTruncated>true</IsTruncated><NextContinuationToken>{escape(page[-1])}</NextContinuationToken>"
        if more
        else ""
    )
    handler.answer(
        200,
        f"<ListBucketResult>{listed}{rest}</ListBucketResult>".encode(),
        {"Content-Type": "application/xml"},
    )


def source_of(uri: str, **spec: Any) -> Any:
    return open_source(SourceSpec(**{"name": "s", "modality": "text", "uri": uri, **spec}), {})


def test_globs_over_a_bucket(bucket: Server) -> None:
    keys = [
        f"d/{name}"
        for name in (
            "1.txt",
            "2.md",
            "deep/3.txt",
            "deep/er/4.txt",
            "deep/er/5.txt",
            ".hidden/6.txt",
            "folder/",
            "a b&c.txt",
        )
    ]
    bucket.bodies.update({f"/shelf/{key}": key.encode() for key in keys})
    for glob, wanted in {
        "d/**/*.txt": ["1.txt", "a b&c.txt", "deep/3.txt", "deep/er/4.txt", "deep/er/5.txt"], "d/*.txt": ["1.txt", "a b&c.txt"],
        "d/*/*.txt": ["deep/3.txt"], "d/**": ["1.txt", "2.md", "a b&c.txt", "deep/3.txt", "deep/er/4.txt", "deep/er/5.txt"], "e/*": [],
    }.items():  # fmt: skip
        source = source_of(f"s3://shelf/{glob}")
        items = list(source.list())
        assert [item.key for item in items] == wanted, glob
        for item in items:
            assert item.uri == f"s3://shelf/d/{item.key}"
            assert (item.size, item.modified_at and item.modified_at.year) == (len(f"d/{item.key}"), 2020)
            assert source.fetch(item.uri, item.locator) == f"d/{item.key}".encode()
            assert source.tag(item.uri, item.locator) == item.tag


def test_pages_are_asked_for_as_they_are_needed(bucket: Server) -> None:
    bucket.bodies.update({f"/shelf/{i:03d}.txt": b"x" for i in range(30)})
    found = source_of("s3://shelf/*.txt").list()
    next(found)
    before = bucket.asked["GET /shelf"] + bucket.asked["GET /shelf/"]
    assert before < 5
    assert len(list(found)) == 29
    assert bucket.asked["GET /shelf"] + bucket.asked["GET /shelf/"] - before >= 5
