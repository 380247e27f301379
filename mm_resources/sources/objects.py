"""Objects by URI, local or remote, opened as a source's spec wants its network used."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any, BinaryIO

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.fetching import Fetching
from mm_resources.http_client import is_web, storage_options
from mm_resources.object_store import fsspec_options
from mm_resources.sources.base import Listed, in_utc
from mm_resources.web import Head, Web

_PLACE = ("endpoint_url", "client_kwargs")
# HEAD requests that are under way or answered and not yet listed.
_ASKED = 256


class Objects:
    """What URIs name: files, http(s) URLs, and whatever else fsspec knows. Picklable; threads may share it."""

    def __init__(self, fetching: Fetching) -> None:
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
        """What `Listed.tag` is now: a local file's size and mtime, an object's etag; None when it is gone or nothing tells."""
        if is_web(uri):
            return self.web.tag(uri) if self.fetching.tags else None
        try:
            if "://" not in uri:
                info = os.stat(uri)
                return f"{info.st_size}-{info.st_mtime_ns}"
            fs, path = self.filesystem(uri)
            fs.invalidate_cache(fs._parent(path))  # a listing that it keeps says what was, not what is
            return remote_tag(fs.info(path))
        except OSError:
            return None

    def tagged(self, items: Iterable[Listed]) -> Iterator[Listed]:
        """The items, those behind http(s) URLs with what HEAD says of them; a URL that does not answer is not tagged."""
        stream = iter(items)
        while chunk := list(islice(stream, _ASKED)):
            asked = [item for item in chunk if self.fetching.tags and item.error is None and is_web(item.uri)]
            for item, head in zip(asked, self.web.heads(item.uri for item in asked) if asked else (), strict=True):
                if isinstance(head, Head):
                    item.tag, item.size, item.modified_at = head.tag, head.size, head.modified_at
            yield from chunk


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
    asked = {"Bucket": bucket, "Prefix": f"{prefix.rstrip('/')}/" if prefix else "", **({} if deep else {"Delimiter": "/"}), **fs.req_kw}
    while True:
        page = fs.call_s3("list_objects_v2", **asked)
        for found in page.get("Contents", ()):
            if not found["Key"].endswith("/"):
                yield {**found, "name": f"{bucket}/{found['Key']}", "size": found["Size"]}
        if not page.get("IsTruncated"):
            return
        asked["ContinuationToken"] = page["NextContinuationToken"]


def modified_at(info: dict[str, Any]) -> datetime | None:
    """When an object was written, under any of the names that file systems give it."""
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, (int, float)):
        return datetime.fromtimestamp(modified, UTC)
    return in_utc(modified) if isinstance(modified, datetime) else None


def unopened(uri: str, error: OSError) -> SampleError:
    """Why an object cannot be opened."""
    if isinstance(error, FileNotFoundError):
        return SampleError("not_found", f"{uri} was listed but is gone", retryable=True)
    if isinstance(error, PermissionError):
        return SampleError("permission_denied", f"{uri} may not be read", retryable=True)
    return SampleError("fetch_error", f"{uri}: {error}", retryable=True)
