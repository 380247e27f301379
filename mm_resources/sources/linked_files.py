"""Files that tables link: by URL, or by a path relative to the table; each is a sample.

A table may come from anywhere, so it may link public http(s) addresses, objects in buckets, and files beside
it; other places only where the spec trusts it (``fetch: {allow_private: true}``).
"""

from __future__ import annotations

import os
import posixpath
import re
import stat
from collections.abc import Iterator
from functools import cached_property
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit

from mm_embed_kernels.errors import SampleError
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.objects.http_client import is_web, redact_url
from mm_resources.objects.opener import ObjectOpener, file_tag
from mm_resources.sources.base import Listed
from mm_resources.sources.globs import glob_root
from mm_resources.sources.walk import add_heads

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# Reached with the user's own credentials at public addresses, not through the private network.
_BUCKETS = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss"}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class LinkedFiles:
    """The samples that the records of one source link."""

    flavour = "url"

    def __init__(self, spec: SourceSpec, opener: ObjectOpener) -> None:
        self.spec, self.opener = spec, opener

    def list(self, rows: Iterator[tuple[Listed, Any]]) -> Iterator[Listed]:
        """Yield the samples that records link, with size, tag and time where these need no opening."""
        return add_heads((self._link(item, reference) for item, reference in rows), self.opener)

    def fetch(self, uri: str) -> bytes | BinaryIO:
        """Return the bytes at a resolved reference; raises as `Source.fetch`."""
        if "://" not in uri and not self._is_inside(os.path.realpath(uri), self._root):
            raise _escape_error(uri)
        return self.opener.fetch(uri)

    @cached_property
    def _root(self) -> str:
        """The local folder that references must not lead out of."""
        root, _ = glob_root(self.spec.uri)
        return os.path.realpath(root if os.path.isdir(root) else posixpath.dirname(root))

    def _link(self, item: Listed, reference: Any) -> Listed:
        """Turn a record into the sample that it links."""
        table, item.locator, item.tag, item.modified_at = item.uri, "", "", None
        if item.error is not None:
            return item
        try:
            item.uri = self.resolve(str(reference), table)
            if "://" not in item.uri:
                info = os.stat(item.uri)
                item.size, item.tag = info.st_size, file_tag(info)
                if not stat.S_ISREG(info.st_mode):
                    item.error = SampleError("not_a_file", f"{item.uri} is a folder, device, socket or pipe")
            elif not is_web(item.uri):
                item.tag = (self.opener.tag(item.uri) if self.spec.fetch.tags else None) or ""
        except SampleError as error:
            item.error = error
        except OSError as error:
            item.error = SampleError("not_found", f"{item.uri}: {error.strerror}")
        return item

    def resolve(self, reference: str, table: str) -> str:
        """Return the path or URL of a reference in a table.

        Raises:
            SampleError: ``bad_url``, ``refused_address`` or ``path_escape``.
        """
        reference = reference.strip()
        if not reference or _UNPRINTABLE.search(reference):
            raise SampleError("bad_url", f"{reference!r:.80} is neither a URL nor a path")
        scheme = _SCHEME.match(reference)
        if scheme is None:
            return self._resolve_relative(reference, table)
        if scheme[1].lower() in ("file", "local"):
            return self._resolve_relative(reference[scheme.end() :], table)
        if is_web(reference):
            return _check_url(reference)
        if (
            not self._is_trusted
            and (scheme[1].lower() not in _BUCKETS or "::" in reference)
            and not self._is_inside(reference, posixpath.dirname(table))
        ):
            raise SampleError(
                "refused_address",
                f"{redact_url(reference)} is neither public http(s) nor in a bucket; "
                "allow it with fetch: {allow_private: true}",
            )
        return reference

    def _resolve_relative(self, path: str, table: str) -> str:
        if is_web(table):
            return _check_url(urljoin(table, path))
        scheme = _SCHEME.match(table)
        folder = posixpath.dirname(table[scheme.end() :] if scheme else table)
        if scheme and path.startswith("/"):
            raise SampleError(
                "path_escape",
                f"{path} in {table} is no path of the list's own file system; write a URL or a relative path",
            )
        path = posixpath.normpath(posixpath.join(folder, path))
        if scheme:
            inside, target = self._is_inside(path, folder), scheme[0] + path
        else:
            # If the path itself is a link, its target is checked when it is opened.
            real = posixpath.join(os.path.realpath(posixpath.dirname(path)), posixpath.basename(path))
            inside, target = self._is_inside(real, self._root), path
        if not inside:
            raise _escape_error(target)
        return target

    @property
    def _is_trusted(self) -> bool:
        return self.spec.fetch.allow_private is True

    def _is_inside(self, path: str, root: str) -> bool:
        return self._is_trusted or (path.startswith(root.rstrip("/") + "/") and ".." not in path.split("/"))


def _escape_error(path: str) -> SampleError:
    return SampleError(
        "path_escape",
        f"{path} lies outside of the list's folder; allow it with fetch: {{allow_private: true}}",
    )


def _check_url(url: str) -> str:
    """Return the URL.

    Raises:
        SampleError: ``bad_url``, when it is none or holds credentials, which would be stored with it.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise SampleError("bad_url", f"{redact_url(url)} is no URL") from None
    if parts.username is not None or parts.password is not None:
        raise SampleError(
            "bad_url",
            f"{redact_url(url)} holds a user's name or password, which would be stored with it; remove it",
        )
    if not parts.hostname:
        raise SampleError("bad_url", f"{redact_url(url)} names no host")
    return url
