"""Objects behind http(s) URLs: their bytes, ranges, or metadata; bounded in time and size."""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.urls import redact_url
from mm_resources.objects.http_client import (
    parse_http_date,
    request_error,
    retry_pause,
    status_error,
    storage_options,
)
from mm_resources.objects.http_headers import entity_tag, is_byte_count, validator_of, whole_size
from mm_resources.storage.store import LARGE_BYTES

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_SLOWEST = 1024  # bytes a second
_PART = 256 << 10
_READAHEAD = 4 << 20
# URLs whose tag is remembered from their last response.
_SERVED = 4_096


@dataclass(frozen=True)
class Head:
    """A server's metadata of an object.

    Attributes:
        tag: entity tag, else date and size; "" where the server sends neither.
        validator: value for If-Range; "" where nothing proves that a range belongs to the same object.
    """

    tag: str
    size: int | None
    modified_at: datetime | None
    validator: str = ""


class HttpObjects:
    """Objects behind http(s) URLs, read within one source's policy. Picklable; threads may share it."""

    def __init__(self, policy: FetchPolicy) -> None:
        self.policy = policy
        self._served: OrderedDict[str, str] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"policy": self.policy, "_served": OrderedDict()}

    def fetch(self, url: str) -> bytes | BinaryIO:
        """Return the body of a GET, or an open temporary file with it where it is large.

        A body that breaks off is continued where it ended if the server can, else it is read again.

        Raises:
            SampleError: ``http_<status>``, ``timeout``, ``too_large``, ``refused_address``, ``unknown_host``,
                ``tls_error``, ``connection_error``, ``bad_url`` or ``too_many_redirects``; `retryable` where
                it may pass.
        """
        spool = self._run(self._download, url)
        size = spool.tell()
        spool.seek(0)
        if size > LARGE_BYTES:
            return cast(BinaryIO, spool)
        with spool:
            return bytes(spool.read())

    def open(self, url: str) -> BinaryIO:
        """Return a seekable stream that requests ranges while it is read, or has the body as a whole.

        Raises:
            SampleError: as `fetch`, and ``source_changed`` when the object changes in between.
        """
        (head,) = self.heads([url])
        if isinstance(head, Head) and head.tag and (head.size or 0) > LARGE_BYTES:
            ranges = _RangeStream(self, url, head.size or 0, head.validator)
            if ranges.are_served():
                return cast(BinaryIO, io.BufferedReader(ranges, _READAHEAD))
        body = self.fetch(url)
        return io.BytesIO(body) if isinstance(body, bytes) else body

    def page(self, url: str, most: int) -> str:
        """Return the text of an HTML page of at most `most` bytes; "" for anything else.

        Raises:
            SampleError: as `fetch`.
        """
        text: str = self._run(self._page, url, most)
        return text

    def heads(self, urls: Iterable[str]) -> list[Head | SampleError]:
        """Send one HEAD request for each URL, concurrently, and return the metadata or error of each."""

        async def request() -> list[Head | SampleError]:
            session = await self._session()
            return await asyncio.gather(*(self._head(session, url) for url in urls))

        heads: list[Head | SampleError] = self._run(request)
        return heads

    def tag(self, url: str) -> str | None:
        """Return the present `Head.tag`; None where the server sends none.

        Taken from the response that `fetch` has read last, else by HEAD.
        """
        if (served := self._served.pop(url, None)) is not None:
            return served or None
        (head,) = self.heads([url])
        return None if isinstance(head, SampleError) else head.tag or None

    def read_range(self, url: str, first: int, size: int, validator: str) -> bytes | None:
        """Return bytes of an object; None where the server sends no ranges, or the object has changed.

        Args:
            validator: `Head.validator` of the object.

        Raises:
            SampleError: as `fetch`.
        """
        part: bytes | None = self._run(self._range, url, first, size, validator)
        return part

    def _run(self, work: Any, *args: Any) -> Any:
        from fsspec.asyn import get_loop, sync

        return sync(get_loop(), work, *args)

    async def _session(self) -> ClientSession:
        import fsspec

        fs = fsspec.filesystem("https", **storage_options("https://", self.policy))
        session: ClientSession = await fs.set_session()
        return session

    async def _head(self, session: ClientSession, url: str) -> Head | SampleError:
        try:
            async with session.head(url, allow_redirects=True) as response:
                if not response.ok:
                    return status_error(url, response.status)
                modified = response.headers.get("Last-Modified", "")
                return Head(
                    entity_tag(response),
                    whole_size(response),
                    parse_http_date(modified),
                    validator_of(response),
                )
        except Exception as error:  # noqa: BLE001 - any error that a foreign server causes is that URL's alone
            return request_error(url, error)

    async def _page(self, url: str, most: int) -> str:
        session = await self._session()
        sink = io.BytesIO()
        try:
            async with session.get(url) as response:
                if response.status not in (200, 203):
                    raise status_error(url, response.status)
                if "Content-Type" in response.headers and response.content_type != "text/html":
                    return ""
                await self._copy(url, response, sink, f"an index page of {most:,} bytes", most)
        except Exception as error:  # noqa: BLE001 - as above
            raise request_error(url, error) from None
        return sink.getvalue().decode("utf-8", "ignore")

    async def _download(self, url: str) -> Any:
        spool = tempfile.SpooledTemporaryFile(LARGE_BYTES)  # noqa: SIM115 - the caller closes it
        try:
            session, validator = await self._session(), ""
            for tries in range(1, self.policy.retries + 2):
                try:
                    async with session.get(url, headers=_rest(spool, validator)) as response:
                        await self._read(url, response, spool)
                        return spool
                except _BrokenBody as broken:
                    validator, problem = broken.validator, broken.error
                except Exception as error:  # noqa: BLE001 - as above
                    raise request_error(url, error) from None
                if tries > self.policy.retries:
                    raise problem
                await asyncio.sleep(retry_pause(tries))
        except BaseException:
            spool.close()
            raise

    async def _range(self, url: str, first: int, size: int, validator: str) -> bytes | None:
        from aiohttp import ClientPayloadError

        session, problem = await self._session(), None
        headers = {
            "Range": f"bytes={first}-{first + size - 1}",
            **({"If-Range": validator} if validator else {}),
        }
        for tries in range(1, self.policy.retries + 2):
            try:
                async with session.get(url, headers=headers) as response:
                    if response.status == 206:
                        return await self._read_range(url, response, first, size)
                    if response.status in (200, 203):
                        return None
                    raise status_error(url, response.status)
            except Exception as error:  # noqa: BLE001 - as above
                problem = request_error(url, error)
                # Only a body that broke off is retried here; the middleware has retried the others.
                if not isinstance(error, ClientPayloadError | TimeoutError):
                    break
            await asyncio.sleep(retry_pause(tries))
        assert problem is not None
        raise problem

    async def _read_range(self, url: str, response: ClientResponse, first: int, size: int) -> bytes:
        """Read the requested bytes; a server may send others, or more."""
        begins, _, end = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")
        last = end.partition("/")[0]
        if begins.strip() != str(first) or not is_byte_count(last) or int(last) >= first + size:
            message = f"{redact_url(url)} sends another range than was asked for"
            raise SampleError("connection_error", message, retryable=True)
        sink = io.BytesIO()
        await self._copy(url, response, sink, f"the range of {size:,} bytes", size)
        return sink.getvalue()

    async def _read(self, url: str, response: ClientResponse, spool: Any) -> None:
        """Append a body to its earlier part in `spool`, or replace that part by the whole body."""
        if response.status not in (200, 203, 206):
            raise status_error(url, response.status)
        continues = response.headers.get("Content-Range", "").startswith(f"bytes {spool.tell()}-")
        if response.status != 206 or not continues:
            spool.seek(0)
            spool.truncate()
            if response.status == 206:
                message = f"{redact_url(url)} sends another range than was asked for"
                raise _BrokenBody(SampleError("connection_error", message, True), "")
        try:
            await self._copy(url, response, spool)
        except SampleError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise _BrokenBody(request_error(url, error), validator_of(response)) from None
        if spool.tell() < (whole_size(response) or 0):
            message = f"{redact_url(url)} ends before its size is reached"
            raise _BrokenBody(
                SampleError("connection_error", message, retryable=True), validator_of(response)
            )
        self._served[url] = entity_tag(response)
        while len(self._served) > _SERVED:
            self._served.popitem(last=False)

    async def _copy(
        self, url: str, response: ClientResponse, spool: Any, what: str = "fetch.max_bytes", most: int = 0
    ) -> None:
        """Copy a body within the limits of size and speed.

        Args:
            what: name of the limit of size.
            most: that limit; 0 for the policy's.
        """
        error_class = "connection_error" if most else "too_large"
        size = 0 if most else whole_size(response) or 0
        limit = most or self.policy.max_bytes
        too_large = SampleError(
            error_class,
            f"{redact_url(url)} is larger than {what}" + ("" if most else f", {limit:,}"),
            retryable=bool(most),
        )
        if size > limit:
            raise too_large
        began, received = time.monotonic(), 0
        async for part in response.content.iter_chunked(_PART):
            received += len(part)
            if spool.tell() + len(part) > limit:
                raise too_large
            spool.write(part)
            seconds = time.monotonic() - began
            if seconds > self.policy.timeout_s and received < seconds * _SLOWEST:
                message = f"{redact_url(url)} sends less than {_SLOWEST:,} bytes a second"
                raise SampleError("timeout", message, retryable=True)


class _RangeStream(io.RawIOBase):
    """An object behind a URL, read in ranges."""

    def __init__(self, objects: HttpObjects, url: str, size: int, validator: str) -> None:
        self._objects, self._url, self._size, self._validator = objects, url, size, validator
        self._at = 0

    def are_served(self) -> bool:
        """Return whether the server sends ranges."""
        return self._objects.read_range(self._url, 0, 1, self._validator) is not None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._size - self._at)
        if size <= 0:
            return 0
        data = self._objects.read_range(self._url, self._at, size, self._validator)
        if data is None:
            raise SampleError(
                "source_changed", f"{redact_url(self._url)} changed while it was read", retryable=True
            )
        part = data[: len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class _BrokenBody(Exception):
    """A body that broke off, with the error and the validator by which its rest may be requested."""

    def __init__(self, error: SampleError, validator: str) -> None:
        super().__init__(error, validator)
        self.error, self.validator = error, validator


def _rest(spool: Any, validator: str) -> dict[str, str]:
    """Return the headers that request the rest of a body."""
    if validator and spool.tell():
        return {"Range": f"bytes={spool.tell()}-", "If-Range": validator}
    return {}
