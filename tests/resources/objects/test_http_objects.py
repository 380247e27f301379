"""HTTP against a server that misbehaves."""

from __future__ import annotations

import pickle
import random
import socket
import time
from typing import Any

import pytest

import mm_resources.objects.http_client
from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.urls import redact_url
from mm_resources.objects.http_objects import Head, HttpObjects
from mm_resources.storage.store import LARGE_BYTES
from tests.resources.server import Handler, Server, cut_off, redirect, stall, status

pytestmark = pytest.mark.usefixtures("brisk")


def reading(**given: Any) -> HttpObjects:
    return HttpObjects(
        FetchPolicy(**{"allow_private": ["127.0.0.2/32"], "requests_per_second": None, **given})
    )


def read(web: HttpObjects, url: str) -> bytes:
    found = web.fetch(url)
    if isinstance(found, bytes):
        return found
    with found:
        return found.read()


def failure(web: HttpObjects, url: str) -> SampleError:
    with pytest.raises(SampleError) as caught:
        web.fetch(url)
    return caught.value


def test_a_body(web: Server) -> None:
    web.bodies["/a"] = b"one"
    assert reading().fetch(f"{web.url}/a") == b"one"
    assert web.headers["/a"][0]["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(
    ("code", "retryable", "asked"),
    [
        (404, False, 1),
        (410, False, 1),
        (403, False, 1),
        (401, False, 1),
        (500, True, 3),
        (503, True, 3),
        (429, True, 3),
        (501, True, 1),
    ],
)
def test_a_status_is_the_cause(web: Server, code: int, retryable: bool, asked: int) -> None:
    web.answers["/a"] = status(code)
    error = failure(reading(retries=2), f"{web.url}/a?token=secret")
    assert (error.error_class, error.retryable) == (f"http_{code}", retryable)
    assert web.asked["GET /a"] == asked
    assert "secret" not in str(error)


def test_what_passes_is_tried_again(web: Server) -> None:
    web.bodies["/a"] = b"one"
    web.faults["/a"] = [status(500), status(502), cut_off(b"one", 1)]
    assert reading(retries=3).fetch(f"{web.url}/a") == b"one"


def test_a_server_that_asks_to_wait_is_waited_for(web: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at is what is slept, not how long the clock says that it took."""
    import asyncio

    slept: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    web.bodies["/a"] = b"one"
    web.faults["/a"] = [
        status(429, Retry_After="7"),
        status(503, Retry_After="Fri, 01 Jan 2010 00:00:00 GMT"),
    ]
    monkeypatch.setattr(mm_resources.objects.http_client.asyncio, "sleep", counted)
    assert reading().fetch(f"{web.url}/a") == b"one"
    assert max(slept) >= 7
    web.faults["/a"] = [status(429, Retry_After="3600")]
    assert failure(reading(retries=5), f"{web.url}/a").error_class == "http_429"


def test_requests_to_one_host_are_spaced(web: Server, other: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    slept: list[float] = []
    sleep = asyncio.sleep

    async def counted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(mm_resources.objects.http_client.asyncio, "sleep", counted)
    reader = reading(allow_private=True, requests_per_second=0.01)
    reader.heads([f"{web.url}/{i}" for i in range(3)] + [f"{other.url}/1"])
    assert sorted(round(seconds / 100) for seconds in slept) == [0, 0, 1, 2]


def test_a_stall_is_a_timeout(web: Server) -> None:
    web.answers["/a"] = stall(1.0)
    web.answers["/b"] = stall(1.0, b"half", length=10)
    for path in "/a", "/b":
        error = failure(reading(retries=0, timeout_s=0.1), f"{web.url}{path}")
        assert (error.error_class, error.retryable) == ("timeout", True)


def test_the_wait_for_a_free_connection_is_not_the_time_of_an_answer(web: Server) -> None:
    """Twelve answers of 0.1 s over one connection take longer than four times 0.2 s, the time of one."""
    urls = [f"{web.url}/{i}" for i in range(12)]

    def answer(handler: Handler) -> None:
        time.sleep(0.1)
        handler.answer(200, b"one")

    web.answers.update({f"/{i}": answer for i in range(12)})
    heads = reading(retries=0, timeout_s=0.2, concurrency=1).heads(urls)
    assert [head for head in heads if not isinstance(head, Head)] == []


def test_a_trickle_is_a_timeout(web: Server) -> None:
    """Each byte comes in time, and the whole never would."""

    def trickle(handler: Any) -> None:
        handler.answer(200, b"", length=1000)
        for _ in range(300):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.01)

    web.answers["/a"] = trickle
    assert failure(reading(retries=0, timeout_s=1), f"{web.url}/a").message.endswith(
        "sends less than 1,024 bytes a second"
    )


@pytest.mark.parametrize("etags", [True, False])
@pytest.mark.parametrize("ranges", [True, False])
def test_a_body_that_breaks_off_is_completed(web: Server, etags: bool, ranges: bool) -> None:
    body = bytes(range(256)) * (LARGE_BYTES // 256 + 4)
    web.bodies["/a"], web.etags, web.ranges = body, etags, ranges
    web.faults["/a"] = [cut_off(body, LARGE_BYTES + 100), cut_off(body, 70_000)]
    reader = reading()
    assert read(reader, f"{web.url}/a") == body
    assert [("Range" in headers) for headers in web.headers["/a"]] == [False, etags, etags]
    assert reader.tag(f"{web.url}/a")


def test_a_body_that_always_breaks_off(web: Server) -> None:
    web.answers["/a"] = cut_off(b"0123456789", 4)
    error = failure(reading(retries=1), f"{web.url}/a")
    assert (error.error_class, error.retryable, web.asked["GET /a"]) == ("connection_error", True, 2)


def test_a_rest_of_another_object_is_not_joined(web: Server) -> None:
    """The object changes while it is read: If-Range makes the server send the new one whole."""
    web.bodies["/a"] = b"new object"
    web.faults["/a"] = [cut_off(b"old object", 4)]
    assert reading().fetch(f"{web.url}/a") == b"new object"


def test_a_compressed_body_that_breaks_off_is_read_anew(web: Server) -> None:
    """Its ranges would be counted in bytes that are not what is kept."""
    import gzip

    body = gzip.compress(random.Random(1).randbytes(200_000))
    headers = {"ETag": '"x"', "Content-Encoding": "gzip"}

    def broken(handler: Handler) -> None:
        handler.answer(200, body[:150_000], headers, length=len(body))
        handler.close_connection = True

    web.answers["/a"] = lambda handler: handler.answer(200, body, headers)
    web.faults["/a"] = [broken]
    assert read(reading(), f"{web.url}/a") == gzip.decompress(body)
    assert not any("Range" in headers for headers in web.headers["/a"])


def test_a_part_that_nobody_asked_for(web: Server) -> None:
    web.bodies["/a"] = b"0123456789"
    web.faults["/a"] = [
        lambda handler: handler.answer(206, b"0123", {"Content-Range": "bytes 0-3/10", "ETag": '"x"'})
    ]
    assert reading().fetch(f"{web.url}/a") == b"0123456789"


def test_too_large(web: Server) -> None:
    web.bodies["/declared"] = b"x" * 101

    def chunked(handler: Any) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for _ in range(50):
            handler.wfile.write(b"32\r\n" + b"x" * 50 + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    web.answers["/undeclared"] = chunked
    for path in "/declared", "/undeclared":
        error = failure(reading(max_bytes=100), f"{web.url}{path}")
        assert (error.error_class, error.retryable, web.asked[f"GET {path}"]) == ("too_large", False, 1)
    assert len(read(reading(max_bytes=2500), f"{web.url}/undeclared")) == 2500


def test_a_compressed_body_is_measured_as_it_unfolds(web: Server) -> None:
    import gzip

    web.answers["/a"] = lambda handler: handler.answer(
        200, gzip.compress(b"x" * 1_000_000), {"Content-Encoding": "gzip"}
    )
    assert failure(reading(max_bytes=10_000), f"{web.url}/a").error_class == "too_large"
    assert read(reading(), f"{web.url}/a") == b"x" * 1_000_000


# -- addresses


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.100.100.200", "0.0.0.0", "168.63.129.16", "224.0.0.1",
        "255.255.255.255", "192.0.0.192", "::1", "::", "fe80::1%1", "fc00::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
        "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "ff02::1",
    ],
)  # fmt: skip
def test_what_is_not_public_is_refused(address: str) -> None:
    assert not FetchPolicy().permits(address)
    assert FetchPolicy(allow_private=True).permits(address)


@pytest.mark.parametrize("address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "64:ff9b::101:101"])
def test_what_is_public_is_permitted(address: str) -> None:
    assert FetchPolicy().permits(address)


def test_networks_that_the_spec_names() -> None:
    fetching = FetchPolicy(allow_private=["10.1.0.0/16", "fd00::/8"])
    assert [fetching.permits(each) for each in ("10.1.2.3", "10.2.0.1", "fd12::1", "fe80::1")] == [
        True,
        False,
        True,
        False,
    ]
    with pytest.raises(ValueError, match="does not appear to be"):
        FetchPolicy(allow_private=["localhost"])


def test_private_addresses_are_refused(web: Server) -> None:
    web.bodies["/a"] = b"secret"
    port = web.server_address[1]
    for host in ("127.0.0.2", "2130706434", "0x7f.0.0.2", "localhost", "[::ffff:127.0.0.2]", "0", "127.2"):
        error = failure(reading(allow_private=False), f"http://{host}:{port}/a")
        assert error.error_class in ("refused_address", "unknown_host", "bad_url"), (host, error)
        assert not error.retryable or error.error_class == "unknown_host"
    assert failure(reading(allow_private=False), f"{web.url}/a").error_class == "refused_address"
    assert web.asked.total() == 0


def test_redirects(web: Server, other: Server) -> None:
    other.bodies["/b"] = b"private"
    web.bodies["/c"] = b"public"
    web.answers.update({
        "/a": redirect(f"{other.url}/b"), "/d": redirect("/c"), "/e": redirect("/e"), "/f": redirect("file:///etc/passwd"),
        "/g": redirect("http://169.254.169.254/latest/meta-data/"),
    })  # fmt: skip
    reader = reading(retries=0)
    found = {path: failure(reader, f"{web.url}{path}").error_class for path in ("/a", "/e", "/f", "/g")}
    assert found == {
        "/a": "refused_address",
        "/e": "too_many_redirects",
        "/f": "bad_url",
        "/g": "refused_address",
    }
    assert other.asked.total() == 0
    assert reader.fetch(f"{web.url}/d") == b"public"
    assert reading(allow_private=True).fetch(f"{web.url}/a") == b"private"


def test_a_name_that_changes_its_address(web: Server, other: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """DNS rebinding: the address that is connected to counts, not one that was looked up before."""
    resolve, addresses = socket.getaddrinfo, ["127.0.0.2", "127.0.0.3", "127.0.0.3"]
    web.answers["/a"] = lambda handler: (
        setattr(handler, "close_connection", True),
        handler.answer(200, b"one", {"Connection": "close"}),
    )[1]

    def rebound(host: str, *args: Any, **kwargs: Any) -> Any:
        return resolve(addresses.pop(0) if host == "rebinding.test" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", rebound)
    url = f"http://rebinding.test:{web.server_address[1]}/a"
    assert reading(retries=0).fetch(url) == b"one"
    # Another client: the first one remembers the name for ten seconds.
    assert failure(reading(retries=0, concurrency=7), url).error_class == "refused_address"


def test_hosts_that_cannot_be_reached(web: Server) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.2", 0))
        error = failure(reading(retries=1), f"http://127.0.0.2:{unused.getsockname()[1]}/a")
    assert (error.error_class, error.retryable) == ("connection_error", True)
    error = failure(reading(retries=0), "http://no-such-host.invalid/a")
    assert (error.error_class, error.retryable) == ("unknown_host", True)
    assert failure(reading(), "http://[/a").error_class == "bad_url"
    assert failure(reading(), "https:///a").error_class == "bad_url"


def test_a_server_that_speaks_no_tls(web: Server) -> None:
    error = failure(reading(retries=0), f"{web.url.replace('http:', 'https:')}/a")
    assert (error.error_class, error.retryable) == ("tls_error", True)


# -- what changed


def test_tags(web: Server) -> None:
    web.bodies["/a"] = b"one"
    web.answers["/dated"] = lambda handler: handler.answer(
        200, b"12", {"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}
    )
    web.answers["/bare"] = lambda handler: handler.answer(
        200, b"12", {"Last-Modified": "nonsense", "ETag": 'W/"x"'}
    )
    reader = reading()
    a, dated, bare, gone = reader.heads(f"{web.url}/{name}" for name in ("a", "dated", "bare", "gone"))
    assert isinstance(a, Head)
    assert isinstance(dated, Head)
    assert a.size == 3
    assert (dated.tag, dated.modified_at and dated.modified_at.year) == (
        "Wed, 21 Oct 2015 07:28:00 GMT-2",
        2015,
    )
    assert isinstance(bare, Head)
    assert (bare.tag, bare.modified_at) == ('"x"', None)
    assert isinstance(gone, SampleError)
    assert reader.tag(f"{web.url}/a") == a.tag
    web.bodies["/a"] = b"two"
    assert reader.tag(f"{web.url}/a") != a.tag
    assert reader.tag(f"{web.url}/gone") is None


def test_the_tag_after_a_fetch_is_its_own(web: Server) -> None:
    web.bodies["/a"] = b"one"
    reader = pickle.loads(pickle.dumps(reading()))
    (before,) = reader.heads([f"{web.url}/a"])
    reader.fetch(f"{web.url}/a")
    asked = web.asked["HEAD /a"]
    assert reader.tag(f"{web.url}/a") == before.tag
    assert web.asked["HEAD /a"] == asked


def test_what_is_shown_of_a_url() -> None:
    assert redact_url("https://user:secret@host:80/a/b?X-Amz-Signature=secret#c") == "https://host:80/a/b"
