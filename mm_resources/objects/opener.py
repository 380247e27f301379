"""Open, fetch and tag single objects by URI: local files, http(s) URLs and whatever else fsspec reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.objects.http_client import is_web, storage_options
from mm_resources.objects.http_objects import Web
from mm_resources.storage.filesystems import fsspec_options, modified_at
from mm_resources.storage.store import LARGE_BYTES

_PLACE = ("endpoint_url", "client_kwargs")


class ObjectOpener:
    """Opens what URIs name, within the network limits of one `fetch` block. Picklable; threads may share it."""

    def __init__(self, fetching: FetchPolicy) -> None:
        self.fetching, self.web = fetching, Web(fetching)

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """(fsspec file system, path in it)."""
        from fsspec.core import url_to_fs

        # Endpoint and region are told, since fsspec keeps what it has made, by what it was told.
        place = {name: value for name, value in fsspec_options(uri).items() if name in _PLACE}
        fs, path = url_to_fs(uri, **place, **storage_options(uri, self.fetching))
        return fs, path

    def open(self, uri: str) -> BinaryIO:
        """A seekable stream, for the caller to close.

        Raises:
            OSError, SampleError: when it cannot be opened.
        """
        if "://" not in uri:
            return open(uri, "rb")
        if is_web(uri):
            return self.web.open(uri)
        fs, path = self.filesystem(uri)
        stream: BinaryIO = fs.open(path, "rb")
        return stream

    def tag(self, uri: str) -> str | None:
        """The object's tag as it is now: a local file's size and mtime, a remote one's ETag; None where it is gone or unknown."""
        if is_web(uri):
            return self.web.tag(uri) if self.fetching.tags else None
        try:
            if "://" not in uri:
                return file_tag(os.stat(uri))
            fs, path = self.filesystem(uri)
            fs.invalidate_cache(fs._parent(path))  # a listing that it keeps says what was, not what is
            return remote_tag(fs.info(path))
        except OSError:
            return None

    def fetch(self, uri: str, path: str | bytes = "") -> bytes | BinaryIO:
        """The bytes of one object, or an open stream for the caller to close where it has more than `LARGE_BYTES`.

        Args:
            path: of a local file, where its URI is not its name (names that are not UTF-8).

        Raises:
            SampleError: with a cause; `retryable` where the network was at fault.
        """
        if is_web(uri):
            return self.web.fetch(uri)
        stream, size = self._sized(uri, path)
        if size > LARGE_BYTES:
            return stream
        with stream:
            try:
                return bytes(stream.read())
            except OSError as error:
                raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error

    def seekable(self, uri: str, path: str | bytes = "") -> BinaryIO:
        """A seekable stream over one object, for the caller to close; takes and raises what `fetch` does."""
        return self.web.open(uri) if is_web(uri) else self._sized(uri, path)[0]

    def _sized(self, uri: str, path: str | bytes) -> tuple[BinaryIO, int]:
        try:
            if "://" not in uri:
                return open_file(path or uri)
            stream = self.open(uri)
            return stream, size_of(stream)
        except OSError as error:
            raise unopened(uri, error) from error


def file_tag(info: os.stat_result) -> str:
    """The tag of a local file: its size and mtime."""
    return f"{info.st_size}-{info.st_mtime_ns}"


def printable(path: str | bytes) -> str:
    """A path as UTF-8 text; bytes that are not UTF-8 become ``\\xNN`` (the locator keeps the real path)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def remote_tag(info: dict[str, Any]) -> str:
    """The etag of what fsspec tells of an object (Google's generation, since its etag moves with metadata), else its size and time."""
    return str(info.get("ETag") or info.get("generation") or f"{info.get('size')}-{modified_at(info)}")


def objects_below(fs: Any, path: str, deep: bool, depth: int | None = None) -> Iterator[dict[str, Any]]:
    """What fsspec tells of each object below a path, folder by folder in a stable order; of S3 page by page.

    Args:
        deep: whether what lies in folders is wanted, too.
        depth: of folders; None for all.
    """
    if "s3" in fs.protocol and hasattr(fs, "call_s3"):
        yield from _s3_objects(fs, path, deep)
        return
    for folder, _, found in fs.walk(path, detail=True, on_error="raise", maxdepth=depth if deep else 1):
        yield from (found[name] for name in sorted(found))
        fs.invalidate_cache(folder)  # which would otherwise hold all listings that it has seen


def _s3_objects(fs: Any, path: str, deep: bool) -> Iterator[dict[str, Any]]:
    """Page by page: `walk` holds a folder at once, and a bucket may be one folder of millions."""
    bucket, _, prefix = path.partition("/")
    asked = {
        "Bucket": bucket,
        "Prefix": f"{prefix.rstrip('/')}/" if prefix else "",
        **({} if deep else {"Delimiter": "/"}),
        **fs.req_kw,
    }
    while True:
        page = fs.call_s3("list_objects_v2", **asked)
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):
                yield {**found, "name": f"{bucket}/{found['Key']}", "size": found["Size"]}
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def unopened(uri: str, error: OSError) -> SampleError:
    """Why an object cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return SampleError("not_found", f"{uri} was listed but is gone", retryable=True)
    if isinstance(error, PermissionError):
        return SampleError("permission_denied", f"{uri} may not be read", retryable=True)
    return SampleError("fetch_error", f"{uri}: {error}", retryable=True)


def size_of(stream: Any) -> int:
    """Bytes of a stream of fsspec's, of which not every kind says so (sftp)."""
    if getattr(stream, "size", None) is None:
        stream.seek(0, os.SEEK_END)
        size: int = stream.tell()
        stream.seek(0)
        return size
    return int(stream.size)


def open_file(path: str | bytes) -> tuple[BinaryIO, int]:
    """A regular file and its size; what was listed as one may be a pipe by now, which would be waited for for ever."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - for the caller to close
    info = os.fstat(stream.fileno())
    if not stat.S_ISREG(info.st_mode):
        stream.close()
        raise SampleError("not_a_file", f"{printable(path)} is a device, socket or pipe")
    return stream, info.st_size
