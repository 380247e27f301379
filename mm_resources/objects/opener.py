"""Open, fetch and tag single objects by URI: local files, http(s) URLs and whatever else fsspec reads."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_resources.objects.http_client import is_web, storage_options
from mm_resources.objects.http_objects import HttpObjects
from mm_resources.objects.local_files import open_regular_file
from mm_resources.storage.filesystems import fsspec_options, modified_at
from mm_resources.storage.store import LARGE_BYTES

# Pages without an object in sequence, as a bucket with many delete markers may have them.
_EMPTY_PAGES = 1_000
_LOCATION_OPTIONS = ("endpoint_url", "client_kwargs")


class ObjectOpener:
    """Opens objects by URI, within the fetch policy of one source. Picklable; threads may share it.

    Args:
        folder: real path of the folder that local files must lie in; None for any place.
    """

    def __init__(self, policy: FetchPolicy, folder: str | None = None) -> None:
        self.policy, self.http, self.folder = policy, HttpObjects(policy), folder

    def filesystem(self, uri: str) -> tuple[Any, str]:
        """Return (fsspec file system, path in it)."""
        from fsspec.core import url_to_fs

        # Endpoint and region are explicit, since fsspec caches file systems by their options.
        options = {name: value for name, value in fsspec_options(uri).items() if name in _LOCATION_OPTIONS}
        fs, path = url_to_fs(uri, **options, **storage_options(uri, self.policy))
        return fs, path

    def open(self, uri: str) -> BinaryIO:
        """Open an object as a seekable stream; the caller closes it.

        Raises:
            OSError, SampleError: when it cannot be opened.
        """
        if "://" not in uri:
            return open_regular_file(uri, self.folder)[0]
        if is_web(uri):
            return self.http.open(uri)
        fs, path = self.filesystem(uri)
        stream: BinaryIO = fs.open(path, "rb")
        return stream

    def tag(self, uri: str) -> str | None:
        """Return the object's present tag: a local file's size and mtime, a remote one's ETag.

        None where the object is gone, or the server sends no tag.
        """
        if is_web(uri):
            return self.http.tag(uri) if self.policy.tags else None
        try:
            if "://" not in uri:
                return file_tag(os.stat(uri))
            fs, path = self.filesystem(uri)
            fs.invalidate_cache(fs._parent(path))  # a cached listing may be out of date
            return remote_tag(fs.info(path))
        except OSError:
            return None

    def fetch(self, uri: str, path: str | bytes = "") -> bytes | BinaryIO:
        """Return the bytes of one object; above `LARGE_BYTES`, an open stream that the caller closes.

        Args:
            path: of a local file whose name is not UTF-8, so that it differs from the URI.

        Raises:
            SampleError: with a cause; `retryable` for errors of the network.
        """
        if is_web(uri):
            return self.http.fetch(uri)
        stream, size = self._open_sized(uri, path)
        if size > LARGE_BYTES:
            return stream
        with stream:
            try:
                data = bytes(stream.read(size + 1))
            except OSError as error:
                raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error
        if len(data) > size:
            raise SampleError("source_changed", f"{uri} grows while it is read", retryable=True)
        return data

    def open_sample(self, uri: str, path: str | bytes = "") -> BinaryIO:
        """Open one object as a seekable stream that the caller closes; takes and raises what `fetch` does."""
        return self.http.open(uri) if is_web(uri) else self._open_sized(uri, path)[0]

    def _open_sized(self, uri: str, path: str | bytes) -> tuple[BinaryIO, int]:
        try:
            if "://" not in uri:
                return open_regular_file(path or uri, self.folder)
            stream = self.open(uri)
            return stream, _stream_size(stream)
        except OSError as error:
            raise open_error(uri, error) from error


def file_tag(info: os.stat_result) -> str:
    """Return the tag of a local file: its size and mtime."""
    return f"{info.st_size}-{info.st_mtime_ns}"


def remote_tag(info: dict[str, Any]) -> str:
    """Return the tag of an object from fsspec's info: its ETag, else size and time.

    Google's generation is used instead of its ETag, which changes with metadata.
    """
    return str(info.get("ETag") or info.get("generation") or f"{info.get('size')}-{modified_at(info)}")


def list_objects(fs: Any, path: str, deep: bool) -> Iterator[dict[str, Any]]:
    """Yield fsspec's info of each object below a path, in a stable order, folder by folder or page by page.

    Args:
        deep: whether to list folders inside it too.

    Raises:
        OSError: also for a server that repeats a page.
    """
    if "s3" in fs.protocol and hasattr(fs, "call_s3"):
        yield from _list_s3_objects(fs, path, deep)
        return
    for folder, _, infos in fs.walk(path, detail=True, on_error="raise", maxdepth=None if deep else 1):
        # An empty object named as a folder ("photos/") marks it; some file systems list it as a file.
        yield from (infos[name] for name in sorted(infos) if not _is_marker(name, infos[name]))
        fs.invalidate_cache(folder)  # or it would hold all listings in memory


def _is_marker(name: str, info: dict[str, Any]) -> bool:
    return not info.get("size") and (not name or str(info["name"]).endswith("/"))


def _list_s3_objects(fs: Any, path: str, deep: bool) -> Iterator[dict[str, Any]]:
    """List page by page: `walk` holds a whole folder, and a bucket may be one folder of millions."""
    bucket, _, prefix = path.partition("/")
    request = {
        "Bucket": bucket,
        "Prefix": f"{prefix.rstrip('/')}/" if prefix else "",
        **({} if deep else {"Delimiter": "/"}),
        **fs.req_kw,
    }
    empty = 0
    while True:
        page = fs.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            if not item["Key"].endswith("/"):
                yield {**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"]}
        if not page.get("IsTruncated"):
            return
        # A page that leads nowhere, or many without objects: such a listing does not end.
        token, entries = page.get("NextContinuationToken"), len(page.get("Contents", ()))
        empty = 0 if entries or page.get("CommonPrefixes") else empty + 1
        if not token or token == request.get("ContinuationToken") or empty > _EMPTY_PAGES:
            raise OSError(f"{path}: the server says that more objects follow, and sends none")
        request["ContinuationToken"] = token


def open_error(uri: str, error: OSError) -> SampleError:
    """Return the sample's error for an object that cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return SampleError("not_found", f"{uri} was listed but is gone", retryable=True)
    if isinstance(error, PermissionError):
        return SampleError("permission_denied", f"{uri} may not be read", retryable=True)
    return SampleError("fetch_error", f"{uri}: {error}", retryable=True)


def _stream_size(stream: Any) -> int:
    """Return the bytes of one of fsspec's streams, not all of which have the attribute (sftp)."""
    if getattr(stream, "size", None) is None:
        stream.seek(0, os.SEEK_END)
        size: int = stream.tell()
        stream.seek(0)
        return size
    return int(stream.size)
