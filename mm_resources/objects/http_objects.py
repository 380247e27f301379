"""Objects behind http(s) URLs: whole, in ranges, or only what a server says of them; bounded in time and size."""

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
from mm_resources.objects.http_client import cause, moment, pause, refused, shown, storage_options
from mm_resources.storage.store import LARGE_BYTES

if TYPE_CHECKING:
    from aiohttp import ClientResponse, ClientSession

_SLOWEST = 1024  # bytes a second
_PART = 256 << 10
_READAHEAD = 4 << 20
_SERVED = 4_096


@dataclass(frozen=True)
class Head:
    """What a server says of an object without sending it."""

    tag: str
    size: int | None
    modified_at: datetime | None
    validator: str = ""


class Web:
    """Objects behind http(s) URLs, as one source's spec wants them read. Picklable; threads may share it."""

    def __init__(self, fetching: FetchPolicy) -> None:
        self.fetching = fetching
        self._served: OrderedDict[str, str] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"fetching": self.fetching, "_served": OrderedDict()}

    def fetch(self, url: str) -> bytes | BinaryIO:
        """The body of a GET, or an open temporary file with it where it is large.

        A body that breaks off goes on where it was left if the server can, else it is read anew.

        Raises:
            SampleError: ``http_<status>``, ``timeout``, ``too_large``, ``refused_address``, ``unknown_host``, ``tls_error``,
                ``connection_error``, ``bad_url`` or ``too_many_redirects``; `retryable` where it may pass.
        """
        spool = self._run(self._download, url)
        size = spool.tell()
        spool.seek(0)
        if size > LARGE_BYTES:
            return cast(BinaryIO, spool)
        with spool:
            return bytes(spool.read())

    def open(self, url: str) -> BinaryIO:
        """A seekable stream that asks for ranges as it is read, or the whole body where the server gives no ranges.

        Raises:
            SampleError: as `fetch`, and ``source_changed`` when the object is another one half-way.
        """
        (head,) = self.heads([url])
        if isinstance(head, Head) and head.tag and (head.size or 0) > LARGE_BYTES:
            ranges = _Ranges(self, url, head.size or 0, head.validator)
            if ranges.probe():
                return cast(BinaryIO, io.BufferedReader(ranges, _READAHEAD))
        found = self.fetch(url)
        return io.BytesIO(found) if isinstance(found, bytes) else found

    def heads(self, urls: Iterable[str]) -> list[Head | SampleError]:
        """What HEAD says of each URL, asked side by side and once."""

        async def ask() -> list[Head | SampleError]:
            session = await self._session()
            return await asyncio.gather(*(self._head(session, url) for url in urls))

        found: list[Head | SampleError] = self._run(ask)
        return found

    def tag(self, url: str) -> str | None:
        """What `Head.tag` is now: as the response said that `fetch` has read last, else by HEAD; None where nothing tells."""
        if (served := self._served.pop(url, None)) is not None:
            return served or None
        (found,) = self.heads([url])
        return None if isinstance(found, SampleError) else found.tag or None

    def _run(self, work: Any, *args: Any) -> Any:
        from fsspec.asyn import get_loop, sync

        return sync(get_loop(), work, *args)

    async def _session(self) -> ClientSession:
        import fsspec

        fs = fsspec.filesystem("https", **storage_options("https://", self.fetching))
        session: ClientSession = await fs.set_session()
        return session

    async def _head(self, session: ClientSession, url: str) -> Head | SampleError:
        try:
            async with session.head(url, allow_redirects=True) as response:
                if not response.ok:
                    return refused(url, response.status)
                modified = response.headers.get("Last-Modified", "")
                return Head(_tag(response), _whole_size(response), moment(modified), _strong(response))
        except Exception as error:  # noqa: BLE001 - whatever a foreign server makes of a client is that URL's failure alone
            return cause(url, error)

    async def _download(self, url: str) -> Any:
        spool = tempfile.SpooledTemporaryFile(LARGE_BYTES)  # noqa: SIM115 - for the caller to close
        try:
            session, validator = await self._session(), ""
            for tries in range(1, self.fetching.retries + 2):
                try:
                    async with session.get(url, headers=_rest(spool, validator)) as response:
                        validator = await self._read(url, response, spool)
                        return spool
                except Broken as broken:
                    validator, problem = broken.validator, broken.cause
                except Exception as error:  # noqa: BLE001 - as above
                    raise cause(url, error) from None
                if tries > self.fetching.retries:
                    raise problem
                await asyncio.sleep(pause(tries))
        except BaseException:
            spool.close()
            raise

    async def _range(self, url: str, first: int, size: int, validator: str) -> bytes | None:
        """Some bytes of an object; None where the server sends no ranges, or the object is another one by now."""
        from aiohttp import ClientPayloadError

        session, problem = await self._session(), None
        headers = {
            "Range": f"bytes={first}-{first + size - 1}",
            **({"If-Range": validator} if validator else {}),
        }
        for tries in range(1, self.fetching.retries + 2):
            try:
                async with session.get(url, headers=headers) as response:
                    if response.status == 206:
                        return await response.read()
                    if response.status in (200, 203):
                        return None
                    raise refused(url, response.status)
            except Exception as error:  # noqa: BLE001 - as above
                problem = cause(url, error)
                # What the middleware has tried again already is not tried once more; a body that breaks off is.
                if not isinstance(error, ClientPayloadError | TimeoutError):
                    break
            await asyncio.sleep(pause(tries))
        assert problem is not None
        raise problem

    async def _read(self, url: str, response: ClientResponse, spool: Any) -> str:
        """Append a body to what is there of it, or begin anew where the server sends the whole."""
        if response.status not in (200, 203, 206):
            raise refused(url, response.status)
        if response.status != 206 or not response.headers.get("Content-Range", "").startswith(
            f"bytes {spool.tell()}-"
        ):
            spool.seek(0)
            spool.truncate()
            if response.status == 206:
                raise Broken(
                    SampleError(
                        "connection_error", f"{shown(url)} sends another range than was asked for", True
                    ),
                    "",
                )
        most = self.fetching.max_bytes
        too_large = SampleError("too_large", f"{shown(url)} is larger than fetch.max_bytes, {most:,}")
        if (_whole_size(response) or 0) > most:
            raise too_large
        began, got = time.monotonic(), 0
        try:
            async for part in response.content.iter_chunked(_PART):
                got += len(part)
                if spool.tell() + len(part) > most:
                    raise too_large
                spool.write(part)
                seconds = time.monotonic() - began
                if seconds > self.fetching.timeout_s and got < seconds * _SLOWEST:
                    raise SampleError(
                        "timeout", f"{shown(url)} sends less than {_SLOWEST:,} bytes a second", retryable=True
                    )
        except SampleError:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            raise Broken(cause(url, error), _strong(response)) from None
        if spool.tell() < (_whole_size(response) or 0):
            raise Broken(
                SampleError(
                    "connection_error", f"{shown(url)} ends before its size is reached", retryable=True
                ),
                _strong(response),
            )
        self._served[url] = _tag(response)
        while len(self._served) > _SERVED:
            self._served.popitem(last=False)
        return ""


class _Ranges(io.RawIOBase):
    """An object behind a URL, read in ranges."""

    def __init__(self, web: Web, url: str, size: int, validator: str) -> None:
        self._web, self._url, self._size, self._validator, self._at = web, url, size, validator, 0

    def probe(self) -> bool:
        return self._web._run(self._web._range, self._url, 0, 1, self._validator) is not None

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
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        found = self._web._run(self._web._range, self._url, self._at, wanted, self._validator)
        if found is None:
            raise SampleError(
                "source_changed", f"{shown(self._url)} changed while it was read", retryable=True
            )
        part = found[: len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class Broken(Exception):
    """A body that broke off: what by, and what proves that the rest is of the same object."""

    def __init__(self, cause: SampleError, validator: str) -> None:
        super().__init__(cause, validator)
        self.cause, self.validator = cause, validator


def _tag(response: ClientResponse) -> str:
    """The entity tag, weak or strong, else date and size."""
    etag = response.headers.get("ETag", "").removeprefix("W/").strip()
    return etag or "-".join(
        filter(None, (response.headers.get("Last-Modified"), response.headers.get("Content-Length")))
    )


def _strong(response: ClientResponse) -> str:
    """What may stand in If-Range; "" where nothing can prove that a rest belongs to what is there."""
    etag = response.headers.get("ETag", "")
    # Ranges of a body that was compressed on its way are counted in its compressed form, which is not what is kept.
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return "" if encoded or etag.startswith("W/") else etag


def _rest(spool: Any, validator: str) -> dict[str, str]:
    """Headers that ask for what is still lacking."""
    if validator and spool.tell():
        return {"Range": f"bytes={spool.tell()}-", "If-Range": validator}
    return {}


def _whole_size(response: ClientResponse) -> int | None:
    """Bytes of the whole object, if the response says so."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        return None
    given = response.headers.get("Content-Range", "").rpartition("/")[2] or response.headers.get(
        "Content-Length", ""
    )
    return int(given) if given.isascii() and given.isdigit() else None
