"""Servers without end: ranges, bodies, index pages and headers cost what was asked for, and no more."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.objects import index_pages
from mm_resources.objects.http_objects import Head, HttpObjects
from mm_resources.objects.index_pages import IndexPages
from tests.resources.server import Handler, Server

SIZE = 20 << 20


pytestmark = pytest.mark.usefixtures("brisk")


def reading(**given: Any) -> HttpObjects:
    policy = {"allow_private": ["127.0.0.2/32"], "requests_per_second": None, "retries": 0, **given}
    return HttpObjects(FetchPolicy(**policy))


class Endless:
    """An answer of as many bytes as the client reads; counts those that were sent."""

    def __init__(self, status: int, content_range: Callable[[str], str]) -> None:
        self.status, self.content_range, self.sent = status, content_range, 0

    def __call__(self, handler: Handler) -> None:
        if handler.command == "HEAD":
            handler.answer(200, headers={"ETag": '"x"'}, length=SIZE)
            return
        asked = handler.headers.get("Range", "").removeprefix("bytes=")
        handler.send_response(self.status)
        handler.send_header("ETag", '"x"')
        handler.send_header("Content-Range", self.content_range(asked))
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.close_connection = True
        try:
            while self.sent < 1 << 30:
                handler.wfile.write(b"10000\r\n" + b"\0" * 0x10000 + b"\r\n")
                self.sent += 0x10000
        except OSError:
            return


@pytest.mark.parametrize(
    "content_range",
    [
        lambda asked: f"bytes {asked}/{SIZE}",
        lambda _: f"bytes 0-{SIZE}/{SIZE}",
        lambda _: "",
        lambda _: "bytes x",
    ],
)
def test_a_range_has_the_bytes_that_were_asked_for(web: Server, content_range: Callable[[str], str]) -> None:
    endless = web.answers["/a"] = Endless(206, content_range)
    with pytest.raises(SampleError) as caught:
        reading().open(f"{web.url}/a").read(10)
    assert caught.value.error_class == "connection_error"
    assert caught.value.retryable
    assert endless.sent < 64 << 20, "what the sockets' buffers hold"


def test_a_body_ends_at_its_bound(web: Server) -> None:
    endless = web.answers["/a"] = Endless(200, lambda _: "")
    with pytest.raises(SampleError, match="too_large"):
        reading(max_bytes=1 << 20).fetch(f"{web.url}/a")
    assert endless.sent < 64 << 20
    packed = gzip.compress(b"\0" * (64 << 20))
    web.answers["/gz"] = lambda handler: handler.answer(200, packed, {"Content-Encoding": "gzip"})
    with pytest.raises(SampleError, match="too_large"):
        reading(max_bytes=1 << 20).fetch(f"{web.url}/gz")


@pytest.mark.parametrize("claim", ["9" * 30, "9" * 5000, "-1", "1e9", "٣"])
def test_a_size_that_no_table_holds_is_unknown(web: Server, claim: str) -> None:
    header = f"bytes 0-1/{claim}".encode().decode("latin-1")
    web.answers["/a"] = lambda handler: handler.answer(200, headers={"Content-Range": header})
    (head,) = reading().heads([f"{web.url}/a"])
    assert isinstance(head, Head)
    assert head.size is None or head.size < 2**63


def test_a_tag_is_text_of_a_table(web: Server) -> None:
    web.answers["/a"] = lambda handler: handler.answer(200, headers={"ETag": '"\xff\xfe"'})
    (head,) = reading().heads([f"{web.url}/a"])
    assert isinstance(head, Head)
    head.tag.encode("utf-8")


def test_pages_without_end(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pages, "_PAGES", 50)

    def page(handler: Handler) -> None:
        handler.answer(200, b'<a href="deeper/">x</a>', {"Content-Type": "text/html"})

    class Everywhere(dict[str, Any]):
        def __contains__(self, _: object) -> bool:
            return True

        def __getitem__(self, _: str) -> Any:
            return page

    web.answers = Everywhere()
    with pytest.raises(UserError, match="more than 50 index pages"):
        list(IndexPages(reading(), f"{web.url}/a", 10_000).files())
    assert len(list(IndexPages(reading(), f"{web.url}/a", 3).files())) == 0


def test_a_page_without_end_costs_itself(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_pages, "_PAGE_BYTES", 1 << 16)
    good = b'<a href="a.txt">a</a><a href="big/">b</a><a href="gone/">c</a>'
    web.answers["/d/"] = lambda handler: handler.answer(200, good, {"Content-Type": "text/html"})
    big = b'<a href="x.txt">' * 10_000
    web.answers["/d/big/"] = lambda handler: handler.answer(200, big, {"Content-Type": "text/html"})
    found = dict(IndexPages(reading(), f"{web.url}/d", 9).files())
    assert {url.removeprefix(web.url): error and error.error_class for url, error in found.items()} == {
        "/d/a.txt": None,
        "/d/big/": "connection_error",
        "/d/gone/": "http_404",
    }


@pytest.mark.parametrize(
    "link", ["../../up.txt", "%2e%2e/%2e%2e/up.txt", "//127.0.0.1/up.txt", "http://[x/", "/up.txt"]
)
def test_a_page_links_what_lies_below_it(web: Server, link: str) -> None:
    text = f'<a class="x" href="{link}">x</a><A HREF=\'ok.txt\'>y</A>'.encode()
    web.answers["/d/"] = lambda handler: handler.answer(200, text, {"Content-Type": "text/html"})
    assert [url for url, _ in IndexPages(reading(), f"{web.url}/d", 9).files()] == [f"{web.url}/d/ok.txt"]


def test_a_page_of_brackets_takes_one_pass(web: Server) -> None:
    """A pattern that backtracks would take hours for it."""
    text = b"<a " * 1_000_000 + b"<a" + b" " * 1_000_000
    web.answers["/d/"] = lambda handler: handler.answer(200, text, {"Content-Type": "text/html"})
    assert list(IndexPages(reading(), f"{web.url}/d", 9).files()) == []
