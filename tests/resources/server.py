"""A real HTTP server on 127.0.0.0/8 that misbehaves on request, and counts its requests."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import pytest

Answer = Callable[["Handler"], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # A response is written in two parts, of which the second would wait 40 ms for the client's acknowledgement.
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        path = self.place()
        self.server.asked[f"{self.command} {path}"] += 1
        self.server.headers[path].append(dict(self.headers))
        faults = self.server.faults[path] if self.command == "GET" else []
        if faults:
            faults.pop(0)(self)
        elif path in self.server.answers:
            self.server.answers[path](self)
        elif path in self.server.bodies:
            self.whole(self.server.bodies[path])
        elif f"{path}/" in self.server.bodies:
            self.answer(301, headers={"Location": f"{path}/"})
        else:
            self.answer(404)

    do_HEAD = do_GET

    def log_message(self, *_: Any) -> None:
        pass

    def place(self) -> str:
        """Return the path by which a body is stored: as requested, or unquoted."""
        path = self.path.partition("?")[0]
        return unquote(path) if unquote(path) in self.server.bodies else path

    def whole(self, body: bytes) -> None:
        path = self.place()
        headers = {"ETag": f'"{hash(body)}"'} if self.server.etags else {}
        first = 0
        if (
            self.server.ranges
            and "Range" in self.headers
            and self.headers.get("If-Range") in (None, headers.get("ETag"))
        ):
            first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
            first, last = int(first), min(int(last or len(body) - 1), len(body) - 1)
            self.answer(
                206, body[first : last + 1], {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}
            )
        else:
            if path.endswith("/"):
                headers["Content-Type"] = "text/html"
            self.answer(200, body, headers)

    def answer(
        self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Length": str(len(body) if length is None else length),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(ThreadingHTTPServer):
    """``bodies`` by path; ``faults`` are sent before a GET's proper answer, ``answers`` instead of it."""

    daemon_threads = True

    def __init__(self, address: str) -> None:
        super().__init__((address, 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.faults: dict[str, list[Answer]] = defaultdict(list)
        self.asked: Counter[str] = Counter()
        self.headers: dict[str, list[dict[str, str]]] = defaultdict(list)
        self.etags, self.ranges = True, True
        self.url = f"http://{address}:{self.server_address[1]}"

    def handle_error(self, *_: Any) -> None:
        """Ignore clients that hang up, which tests provoke."""

    def write_index_pages(self) -> None:
        """Write index pages over all bodies, as web servers do."""
        folders: dict[str, set[str]] = defaultdict(set)
        for path in list(self.bodies):
            parts = path.strip("/").split("/")
            for depth, part in enumerate(parts):
                folders["/" + "".join(f"{each}/" for each in parts[:depth])].add(
                    part + ("/" if depth < len(parts) - 1 else "")
                )
        for folder, names in folders.items():
            links = "".join(f'<a href="{name}">{name}</a>' for name in sorted(names))
            self.bodies[folder] = f'<a href="../">up</a><a href="?C=N;O=D">sort</a>{links}'.encode()


def status(code: int, **headers: str) -> Answer:
    return lambda handler: handler.answer(
        code, b"trouble", {name.replace("_", "-"): value for name, value in headers.items()}
    )


def cut_off(body: bytes, at: int) -> Answer:
    """Send the headers of the whole body and a part of it, then close the connection."""

    def answer(handler: Handler) -> None:
        handler.answer(
            200, body[:at], {"ETag": f'"{hash(body)}"'} if handler.server.etags else {}, length=len(body)
        )
        handler.close_connection = True

    return answer


def stall(seconds: float, body: bytes = b"", length: int = 10) -> Answer:
    def answer(handler: Handler) -> None:
        if body:
            handler.answer(200, body, length=length)
            handler.wfile.flush()
        handler.close_connection = True
        time.sleep(seconds)

    return answer


def redirect(url: str) -> Answer:
    return lambda handler: handler.answer(302, headers={"Location": url})


def _serve(address: str) -> Iterator[Server]:
    server = Server(address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def web() -> Iterator[Server]:
    """A server at 127.0.0.2."""
    yield from _serve("127.0.0.2")


@pytest.fixture
def other() -> Iterator[Server]:
    """A server at 127.0.0.3."""
    yield from _serve("127.0.0.3")
