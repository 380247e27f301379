"""The HTTP client of sources: limits its requests to each host, and connects to public addresses only.

URL lists, single URLs, and the globs that fsspec resolves by index pages all use it.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.urls import redact_url
from mm_resources.backoff import backoff_pause

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession

# Statuses that may pass soon: Request Timeout, Too Early, Too Many Requests, and errors of the server.
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
# Seconds: upper bound of the first pause, and of any. A server that asks for more is left to a later run.
_PAUSE, _LONGEST = 0.5, 30.0
# Bytes of a body that is read as a whole: by fsspec, for a file system in a file behind a URL.
_WHOLE_BYTES = 256 << 20
# A server may send its headers byte by byte, each within the time for one: they have as many times in all.
_HEADER_TIMES = 4
# Hosts whose next free moment is remembered.
_HOSTS = 10_000
# Limit of the answer to the request of this task, and its seconds.
_answer_limit: ContextVar[tuple[asyncio.Timeout, float]] = ContextVar("answer_limit")


def is_web(uri: str) -> bool:
    """Return whether a URI is an http(s) URL."""
    return uri.lower().startswith(("http://", "https://"))


def storage_options(uri: str, policy: FetchPolicy) -> dict[str, Any]:
    """Return the options by which fsspec's HTTP uses this client, in a chain too (``zip://a::https://…``)."""
    protocols = {bit.partition("://")[0].lower() for bit in uri.split("::")} & {"http", "https"}
    options = {"get_client": partial(_create_client, policy)}
    return options if is_web(uri) else {protocol: options for protocol in protocols}


class _PoliteMiddleware:
    """aiohttp middleware: spaces the requests to each host, retries transient errors, obeys Retry-After."""

    def __init__(self, policy: FetchPolicy) -> None:
        self.policy = policy
        self._gap = 1 / policy.requests_per_second if policy.requests_per_second else 0.0
        self._free: dict[str, float] = {}  # host -> time (monotonic) of its next request

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        host = request.url.authority
        # HEAD only checks whether an object changed; where it fails, GET is retried instead.
        last = 1 if request.method == "HEAD" else self.policy.retries + 1
        tries = 0
        while True:
            tries += 1
            await self._wait_for_turn(host)
            try:
                # It begins where the connection is there: others may take their time before.
                async with asyncio.timeout(None) as limit:
                    _answer_limit.set((limit, _HEADER_TIMES * self.policy.timeout_s))
                    response = await handler(request)
            except Exception as error:  # of aiohttp or a socket; raised again unless it is transient
                if tries >= last or not request_error(str(request.url), error).retryable:
                    raise
                requested = 0.0
            else:
                requested = _retry_after(response)
                if tries >= last or response.status not in _TRANSIENT or requested > _LONGEST:
                    return response
                response.close()
                self._free[host] = max(self._free.get(host, 0.0), time.monotonic() + requested)
            await asyncio.sleep(max(requested, retry_pause(tries)))

    async def _wait_for_turn(self, host: str) -> None:
        now = time.monotonic()
        if len(self._free) > _HOSTS:
            self._free = {name: free for name, free in self._free.items() if free > now}
        turn = max(now, self._free.get(host, 0.0))
        self._free[host] = turn + self._gap
        await asyncio.sleep(turn - now)


@cache
def _middleware(policy: FetchPolicy) -> _PoliteMiddleware:
    """Return the middleware that all sessions of a process share: fsspec opens one in each thread."""
    return _PoliteMiddleware(policy)


async def _create_client(policy: FetchPolicy, loop: Any = None, **options: Any) -> ClientSession:  # noqa: ARG001 - fsspec passes `loop`
    import aiohttp

    # The check is made where a socket is created, so that it applies to the address that is connected to,
    # whatever a name resolves to by then, and to each hop of a redirect.
    def create_socket(address: Any) -> socket.socket:
        family, kind, protocol, _, target = address
        if not policy.permits(target[0]):
            raise PermissionError(errno.EACCES, f"{target[0]} is not a public address")
        return socket.socket(family, kind, protocol)

    class Connector(aiohttp.TCPConnector):
        """A connector that starts the time of an answer, once a request has its connection."""

        async def connect(self, *args: Any, **options: Any) -> aiohttp.connector.Connection:
            connection = await super().connect(*args, **options)
            limit, seconds = _answer_limit.get()
            limit.reschedule(asyncio.get_running_loop().time() + seconds)
            return connection

    class BoundedResponse(aiohttp.ClientResponse):
        """A response whose body is read as a whole only up to a bound."""

        async def read(self) -> bytes:
            if self._body is None:
                body = bytearray()
                async for part in self.content.iter_any():
                    body += part
                    if len(body) > _WHOLE_BYTES:
                        self.close()
                        raise aiohttp.ClientPayloadError(f"a body has more than {_WHOLE_BYTES:,} bytes")
                self._body = bytes(body)
            return self._body

    return aiohttp.ClientSession(
        response_class=BoundedResponse,
        connector=Connector(limit=policy.concurrency, socket_factory=create_socket),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Without a total: a large object may take hours, as long as bytes arrive.
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=policy.timeout_s, sock_read=policy.timeout_s),
        headers={"User-Agent": "mm-features", "Accept-Encoding": "identity"},
        middlewares=[_middleware(policy)],
        **options,
    )


def retry_pause(tries: int) -> float:
    """Return seconds before a retry, see `mm_resources.backoff`."""
    return backoff_pause(tries, _PAUSE, _LONGEST)


def _retry_after(response: ClientResponse) -> float:
    """Return the seconds that the server asks to wait (RFC 9110, 10.2.3); 0 where it does not."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    until = parse_http_date(value)
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until else 0.0


def parse_http_date(value: str) -> datetime | None:
    """Parse the date of an HTTP header, into UTC; None where it is none."""
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date.astimezone(UTC) if date.tzinfo else date.replace(tzinfo=UTC)


def status_error(url: str, status: int) -> SampleError:
    """Return the error of a response that is not a success."""
    return SampleError(
        f"http_{status}",
        f"{redact_url(url)} answers with status {status}",
        retryable=status in _TRANSIENT or status >= 500,
    )


def request_error(url: str, error: Exception) -> SampleError:
    """Return the sample's error for a failed request."""
    import aiohttp

    if isinstance(error, SampleError):
        return error
    target, detail = redact_url(url), f"{type(error).__name__}: {error}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return SampleError("tls_error", f"{target}: {detail}", retryable=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return SampleError(
            "unknown_host", f"{target}: its host has no address that can be found", retryable=True
        )
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.EACCES:
        detail = error.os_error.strerror or "not a public address"
        return SampleError(
            "refused_address",
            f"{target} leads to {detail}; allow it with fetch: {{allow_private: [NETWORK]}}",
        )
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError):
        return SampleError("bad_url", f"{target} is no URL that can be asked for, or redirects to one")
    if isinstance(error, aiohttp.TooManyRedirects):
        return SampleError("too_many_redirects", f"{target} redirects without end")
    if isinstance(error, TimeoutError):
        return SampleError("timeout", f"{target} does not answer in time", retryable=True)
    return SampleError("connection_error", f"{target}: {detail}", retryable=True)
