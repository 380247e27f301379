"""Files and tables behind http(s): one URL, numbered shards, and globs over index pages."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.sources import Source, open_source
from mm_resources.storage.store import LARGE_BYTES
from tests.resources.server import Server, status

LOCAL = {"allow_private": ["127.0.0.2/32"], "requests_per_second": None, "retries": 0}


def source_of(uri: str, fetch: dict[str, Any] = LOCAL, **spec: Any) -> Source:
    return open_source(
        SourceSpec(**{"name": "s", "modality": "text", "uri": uri, "fetch": fetch, **spec}), {}
    )


def test_one_url_is_one_sample(web: Server) -> None:
    web.bodies["/a/b c.txt"] = web.bodies["/a/b%20c.txt"] = b"one"
    for url, key in (
        (f"{web.url}/a/b%20c.txt", "b c.txt"),
        (f"{web.url}/a/b%20c.txt?version=1&token=secret", "b c.txt"),
    ):
        source = source_of(url)
        (item,) = source.list()
        assert (item.key, item.uri, item.size, item.error) == (key, url, 3, None)
        assert source.fetch(item.uri, item.locator) == b"one"
        assert source.tag(item.uri, item.locator) == item.tag


def test_a_url_that_cannot_be_listed(web: Server) -> None:
    with pytest.raises(UserError, match=r"^http_404: .* answers with status 404$"):
        list(source_of(f"{web.url}/none").list())
    with pytest.raises(UserError, match="is not a public address; allow it with fetch"):
        list(source_of(f"{web.url}/a", fetch={}).list())


def test_a_server_without_head(web: Server) -> None:
    def only_get(handler: Any) -> None:
        handler.answer(405) if handler.command == "HEAD" else handler.answer(200, b"one")

    web.answers["/a"] = only_get
    source = source_of(f"{web.url}/a")
    (item,) = source.list()
    assert (item.tag, source.fetch(item.uri, "")) == ("", b"one")


def test_numbered_shards(web: Server) -> None:
    """Servers of shards have no index pages."""
    web.bodies.update({f"/shards/{i:04d}.txt": str(i).encode() for i in (8, 9, 11)})
    source = source_of(f"{web.url}/shards/{{0008..0011}}.txt")
    found: dict[str, Any] = {}
    for item in source.list():
        try:
            found[item.key] = source.fetch(item.uri, "")
        except SampleError as error:
            found[item.key] = error.error_class
    assert found == {"0008.txt": b"8", "0009.txt": b"9", "0010.txt": "http_404", "0011.txt": b"11"}


def test_a_glob_over_index_pages(web: Server) -> None:
    web.bodies.update(
        {
            path: path.encode()
            for path in (
                "/d/1.txt",
                "/d/2.md",
                "/d/deep/3.txt",
                "/d/deep/er/4.txt",
                "/d/a%20b.txt",
                "/e/5.txt",
            )
        }
    )
    web.write_index_pages()
    for pattern, keys in {
        "*.txt": ["1.txt", "a b.txt"], "**/*.txt": ["1.txt", "a b.txt", "deep/3.txt", "deep/er/4.txt"], "deep/*": ["3.txt"], "*.jpg": [],
    }.items():  # fmt: skip
        source = source_of(f"{web.url}/d/{pattern}")
        items = list(source.list())
        assert sorted(item.key for item in items) == keys, pattern
        for item in items:
            assert item.tag
            assert source.fetch(item.uri, item.locator) == item.uri.removeprefix(web.url).encode()
            assert item.size == len(item.uri.removeprefix(web.url))


def test_an_index_that_cannot_be_read(web: Server) -> None:
    web.answers["/d"] = web.answers["/d/"] = status(500)
    with pytest.raises(UserError, match="500"):
        list(source_of(f"{web.url}/d/*.txt").list())
    with pytest.raises(UserError, match="not a public address"):
        list(source_of(f"{web.url}/d/*.txt", fetch={"retries": 0}).list())


def test_index_pages_that_never_end(web: Server) -> None:
    """Each folder links one more below it."""

    class Endless(dict[str, Any]):
        def __contains__(self, path: object) -> bool:
            return str(path).startswith("/d")

        def __getitem__(self, path: str) -> Any:
            return lambda handler: handler.answer(
                200, b'<a href="x/">x</a><a href="1.txt">1</a>', {"Content-Type": "text/html"}
            )

    web.answers = Endless()
    assert 1 < len(list(source_of(f"{web.url}/d/**/*.txt", fetch={**LOCAL, "tags": False}).list())) < 100


@pytest.mark.parametrize("ranges", [True, False])
def test_tables_behind_urls(web: Server, ranges: bool) -> None:
    """Large ones are read in ranges where the server has them."""
    web.ranges = ranges
    rows = [{"id": str(i), "text": f"{i} " + "x" * 50_000} for i in range(LARGE_BYTES // 50_000 + 20)]
    stream = io.BytesIO()
    parquet.write_table(
        pa.Table.from_pylist(rows), stream, row_group_size=20, compression="none", use_dictionary=False
    )
    import json

    web.bodies["/t.parquet"] = stream.getvalue()
    web.bodies["/t.jsonl"] = "".join(json.dumps(row) + "\n" for row in rows).encode()
    for name in ("t.parquet", "t.jsonl"):
        source = source_of(f"{web.url}/{name}", record={"text": "text", "id": "id"})
        items = list(source.list())
        assert [item.key for item in items] == [row["id"] for row in rows]
        for place in (0, 100, 21, len(rows) - 1):
            assert source.fetch(items[place].uri, items[place].locator) == rows[place]["text"].encode()
        assert ("Range" in web.headers[f"/{name}"][-1]) or not ranges


def test_links_that_differ_in_their_query_are_samples_of_their_own(web: Server) -> None:
    links = b'<a href="a.txt?x=1">a</a><a href="a.txt?x=2">a</a><a href="b.txt#top">b</a>'
    web.answers["/d/"] = lambda handler: handler.answer(200, links, {"Content-Type": "text/html"})
    source = source_of(f"{web.url}/d/*.txt", {**LOCAL, "tags": False})
    assert sorted(item.key for item in source.list()) == ["a.txt", "a.txt#2", "b.txt"]
