"""The HTTP client of sources: polite to hosts, and closed to addresses that are not public.

One for all: URL lists, single URLs, and the globs that fsspec looks up in index pages.
"""

from __future__ import annotations

import asyncio
import errno
import random
import re
import socket
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy

if TYPE_CHECKING:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse, ClientSession

# May pass soon: Request Timeout, Too Early, Too Many Requests, and a server's own trouble.
_PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
# Seconds: the first pause's upper bound, and that of any. A server that asks for more is left to a later run.
_PAUSE, _LONGEST = 0.5, 30.0
_HOSTS = 10_000


def is_web(uri: str) -> bool:
    return uri.lower().startswith(("http://", "https://"))


def shown(url: str) -> str:
    """A URL without what may be secret in it: a query holds signatures and tokens."""
    return re.sub(r"^([\w+.-]+://)[^/?#]*@", r"\1", re.split(r"[?#]", url, maxsplit=1)[0])


def storage_options(uri: str, fetching: FetchPolicy) -> dict[str, Any]:
    """What fsspec needs so that its HTTP, in a chain too (``zip://a::https://…``), goes through this client."""
    protocols = {bit.partition("://")[0].lower() for bit in uri.split("::")} & {"http", "https"}
    given = {"get_client": partial(_client, fetching)}
    return given if is_web(uri) else {protocol: given for protocol in protocols}


class _Polite:
    """aiohttp middleware: spaces the requests to each host, tries again what may pass, waits as long as a server asks."""

    def __init__(self, fetching: FetchPolicy) -> None:
        self.fetching = fetching
        self._gap = 1 / fetching.requests_per_second if fetching.requests_per_second else 0.0
        self._free: dict[str, float] = {}  # host -> when its next request may go out

    async def __call__(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        host = request.url.authority
        # HEAD only asks whether something changed; what fails there is tried in earnest by GET.
        last = 1 if request.method == "HEAD" else self.fetching.retries + 1
        tries = 0
        while True:
            tries += 1
            await self._turn(host)
            try:
                response = await handler(request)
            except Exception as error:
                if tries >= last or not cause(str(request.url), error).retryable:
                    raise
                asked = 0.0
            else:
                asked = _retry_after(response)
                if tries >= last or response.status not in _PASSING or asked > _LONGEST:
                    return response
                response.close()
                self._free[host] = max(self._free.get(host, 0.0), time.monotonic() + asked)
            await asyncio.sleep(max(asked, pause(tries)))

    async def _turn(self, host: str) -> None:
        now = time.monotonic()
        if len(self._free) > _HOSTS:
            self._free = {name: free for name, free in self._free.items() if free > now}
        mine = max(now, self._free.get(host, 0.0))
        self._free[host] = mine + self._gap
        await asyncio.sleep(mine - now)


@cache
def _polite(fetching: FetchPolicy) -> _Polite:
    """One for all sessions of a process: fsspec opens one in each thread."""
    return _Polite(fetching)


async def _client(fetching: FetchPolicy, loop: Any = None, **options: Any) -> ClientSession:
    import aiohttp

    # Looked at where a socket is made for it, the address is the one that is connected to: whatever a name resolves to by
    # then, and for each hop of a redirect.
    def vetted(address: Any) -> socket.socket:
        family, kind, protocol, _, where = address
        if not fetching.permits(where[0]):
            raise PermissionError(errno.EACCES, f"{where[0]} is not a public address")
        return socket.socket(family, kind, protocol)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=fetching.concurrency, socket_factory=vetted),
        cookie_jar=aiohttp.DummyCookieJar(),
        # Without a whole: a large object may take hours, as long as it goes on coming.
        timeout=aiohttp.ClientTimeout(
            total=None, sock_connect=fetching.timeout_s, sock_read=fetching.timeout_s
        ),
        headers={"User-Agent": "mm-features", "Accept-Encoding": "identity"},
        middlewares=[_polite(fetching)],
        **options,
    )


def pause(tries: int) -> float:
    """Exponential with full jitter (Brooker, AWS Architecture Blog, 2015)."""
    return random.uniform(0, min(_LONGEST, _PAUSE * 2 ** (tries - 1)))


def _retry_after(response: ClientResponse) -> float:
    """Seconds that the server asks to wait (RFC 9110, 10.2.3); 0 where it does not."""
    given = response.headers.get("Retry-After", "").strip()
    if given.isascii() and given.isdigit():
        return float(given)
    until = moment(given)
    return max(0.0, (until - datetime.now(UTC)).total_seconds()) if until else 0.0


def moment(given: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(given)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


def refused(url: str, status: int) -> SampleError:
    return SampleError(
        f"http_{status}",
        f"{shown(url)} answers with status {status}",
        retryable=status in _PASSING or status >= 500,
    )


def cause(url: str, error: Exception) -> SampleError:
    """What a failed request is recorded as."""
    import aiohttp

    if isinstance(error, SampleError):
        return error
    where, said = shown(url), f"{type(error).__name__}: {error}"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return SampleError("tls_error", f"{where}: {said}", retryable=True)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return SampleError(
            "unknown_host", f"{where}: its host has no address that can be found", retryable=True
        )
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno == errno.EACCES:
        said = error.os_error.strerror or "not a public address"
        return SampleError(
            "refused_address", f"{where} leads to {said}; allow it with fetch: {{allow_private: [NETWORK]}}"
        )
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError | ValueError):
        return SampleError("bad_url", f"{where} is no URL that can be asked for, or redirects to one")
    if isinstance(error, aiohttp.TooManyRedirects):
        return SampleError("too_many_redirects", f"{where} redirects without end")
    if isinstance(error, TimeoutError):
        return SampleError("timeout", f"{where} does not answer in time", retryable=True)
    return SampleError("connection_error", f"{where}: {said}", retryable=True)
