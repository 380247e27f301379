"""Files that tables link: by URL, or by a path relative to the table; each is a sample.

A table may come from anywhere, so it may link public http(s) addresses and files beside it. It may name
buckets, which are reached with the user's own credentials, only where the spec allows them
(``fetch: {allow: [s3://mine/]}``), and any other place only where the spec trusts the table
(``fetch: {allow_private: true}``).
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
from mm_embed_kernels.urls import redact_url, strip_secrets
from mm_resources.objects.http_client import is_web
from mm_resources.objects.opener import ObjectOpener, file_tag
from mm_resources.sources.base import Listed
from mm_resources.sources.globs import glob_root
from mm_resources.sources.walk import add_heads

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")
# Schemes of what a list may name: URLs, paths, and buckets that the spec allows.
_KNOWN = {"file", "local", *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hf", "oss")}
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")


class LinkedFiles:
    """The samples that the records of one source link."""

    flavour = "url"

    def __init__(self, spec: SourceSpec, opener: ObjectOpener) -> None:
        self.spec = spec
        self._unreached: set[str] = set()
        # The folder of the table, whatever file of it is read; any place where the table is trusted.
        self.opener = ObjectOpener(spec.fetch, None if self._is_trusted else opener.folder)

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
                item.tag = self._bucket_tag(item.uri)
        except SampleError as error:
            item.error = error
        except (OSError, ValueError) as error:
            item.error = SampleError("not_found", f"{item.uri}: {getattr(error, 'strerror', '') or error}")
        return item

    def _bucket_tag(self, uri: str) -> str:
        """Return the tag of an object in a bucket; "" where it cannot be requested.

        Without credentials, a region or the package of its scheme, reading the object raises the cause, which
        is then a failure of this sample alone, tried again by the next run.
        """
        bucket = "/".join(uri.split("/")[:3])
        if not self.spec.fetch.tags or bucket in self._unreached:
            return ""
        try:
            return self.opener.tag(uri) or ""
        except Exception:  # noqa: BLE001 - of any client's library; `fetch` names it
            self._unreached.add(bucket)
            return ""

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
            and ("::" in reference or not self.spec.fetch.allows(reference))
            and not self._is_inside(reference, posixpath.dirname(table))
        ):
            bucket = f"{scheme[0]}{reference[scheme.end() :].partition('/')[0]}/"
            advice = (
                f"allow: [{redact_url(bucket)}]" if scheme[1].lower() in _KNOWN else "allow_private: true"
            )
            raise SampleError(
                "refused_address",
                f"{redact_url(reference)} is no public http(s) address, and a list names it; "
                f"allow it with fetch: {{{advice}}}",
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


def reference_key(reference: str) -> str:
    """Return the key of a linked sample: its reference, if that holds no secret.

    One that cannot be requested is stripped of its whole query.
    """
    scheme = _SCHEME.match(reference.strip())
    if scheme is None or scheme[1].lower() in _KNOWN:
        return strip_secrets(reference)
    try:
        is_url = is_web(reference.strip()) and bool(urlsplit(reference.strip()).hostname)
    except ValueError:
        is_url = False
    return strip_secrets(reference) if is_url else redact_url(reference)


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
