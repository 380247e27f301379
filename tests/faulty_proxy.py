"""An HTTP proxy between a client and a server that spoils what passes: the network as it is on a bad day."""

from __future__ import annotations

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
KINDS = ("slow_down", "reset", "lost", "cut")


@dataclass
class Fault:
    """What is spoiled, and how.

    Attributes:
        kind: ``slow_down``: 503, the server sees nothing. ``reset``: the connection breaks before the server sees anything.
            ``lost``: the server did what was asked, and its answer is lost. ``cut``: half of the answer's body, then a reset.
            ``hang``: half of it, then nothing more.
        request: regular expression over ``METHOD path?query``.
        times: how often it strikes.
    """

    kind: str
    request: str = "."
    times: int = 1


@dataclass
class Faulty:
    """A proxy's faults and what it has seen."""

    target: int
    port: int = 0
    faults: list[Fault] = field(default_factory=list)
    # Of all requests, in a random order that is the same in every run.
    share: float = 0.0
    struck: list[tuple[str, str]] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kind(self, request: str) -> str:
        """The fault that this request meets, or ""."""
        with self._lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.request, request):
                    fault.times -= 1
                    break
            else:
                if self._random.random() >= self.share:
                    return ""
                fault = Fault(self._random.choice(KINDS))
            self.struck.append((fault.kind, request))
            return fault.kind

    @property
    def left(self) -> int:
        """Strikes that are still to come."""
        return sum(fault.times for fault in self.faults)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    faulty: Faulty

    def _relay(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.faulty.keys.update(re.findall(r"Credential=([^/]+)/", self.headers.get("Authorization", "")))
        kind = self.faulty.kind(f"{self.command} {self.path}")
        if kind == "slow_down":
            self._answer(503, {"Content-Type": "application/xml"}, SLOW_DOWN)
        elif kind == "reset":
            self._reset()
        else:
            self._forward(kind, body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _relay

    def _forward(self, kind: str, body: bytes) -> None:
        try:
            server = http.client.HTTPConnection("127.0.0.1", self.faulty.target, timeout=60)
            kept = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("expect", "connection")
            }
            server.request(self.command, self.path, body, kept)
            response = server.getresponse()
            found = response.read()
            server.close()
        except (OSError, http.client.HTTPException):
            return self._reset()  # the server is down
        if kind == "lost":
            return self._reset()
        headers = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in ("connection", "server", "date")
        }
        if kind not in ("cut", "hang") or len(found) < 2:
            return self._answer(response.status, headers, found)
        self._answer(response.status, headers, found[: len(found) // 2])
        if kind == "hang":
            time.sleep(3)
        self._reset()
        return None

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _reset(self) -> None:
        self.close_connection = True
        # Without lingering, closing sends RST in place of FIN.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True

    def finish(self) -> None:
        try:
            super().finish()
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, format: str, *words: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def shutdown_request(self, request: Any) -> None:
        try:
            super().shutdown_request(request)
        except OSError:
            self.close_request(request)


@contextmanager
def faulty_proxy(target: int) -> Iterator[Faulty]:
    """A proxy before the server on port `target`."""
    faulty = Faulty(target)
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"faulty": faulty}))
    faulty.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield faulty
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
