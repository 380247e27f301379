"""List the files of a glob: in local folders, file systems of fsspec, index pages of web servers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import filterfalse, islice
from typing import Any
from urllib.parse import unquote

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.urls import redact_url
from mm_resources.objects.http_client import is_web
from mm_resources.objects.http_objects import Head
from mm_resources.objects.index_pages import IndexPages
from mm_resources.objects.local_files import printable_path
from mm_resources.objects.opener import ObjectOpener, file_tag, list_objects, remote_tag
from mm_resources.sources.base import Listed
from mm_resources.sources.globs import (
    WILD,
    alternatives,
    exclusion,
    glob_root,
    key_matcher,
    names_dots,
)
from mm_resources.sources.keys import Keys
from mm_resources.sources.sorted_folder import FolderEntry, sorted_entries
from mm_resources.storage.filesystems import modified_at

_DEEPEST = 32  # folders; index pages may link each other endlessly
# Items whose HEAD requests run concurrently.
_HEADS_AT_ONCE = 256


def walk(uri: str, opener: ObjectOpener, exclude: Sequence[str] = ()) -> Iterator[Listed]:
    """Yield the files of a path, folder, glob or URL, streaming, in a stable order.

    Args:
        exclude: names, folders and globs of keys to leave out; see `globs.exclusion`.

    Raises:
        OSError, UserError: when the source as a whole cannot be listed.
    """
    excludes = exclusion(exclude)
    if is_web(uri):
        return add_heads(filterfalse(lambda item: excludes(item.key), _walk_web(uri, opener)), opener)
    if "://" in uri:
        return filterfalse(lambda item: excludes(item.key), _walk_remote(uri, opener))
    return _walk_local(uri, excludes)


def is_failed_folder(item: Listed) -> bool:
    """Return whether an item is a folder that no walk enters: a link to one, or one that cannot be read."""
    return item.error is not None and (item.error.error_class == "linked_folder" or item.key.endswith("/"))


def add_heads(items: Iterable[Listed], opener: ObjectOpener) -> Iterator[Listed]:
    """Add size, tag and time from HEAD to items behind http(s) URLs; one without an answer stays untagged."""
    stream = iter(items)
    while chunk := list(islice(stream, _HEADS_AT_ONCE)):
        remote = [item for item in chunk if opener.policy.tags and item.error is None and is_web(item.uri)]
        heads = opener.http.heads(item.uri for item in remote) if remote else []
        for item, head in zip(remote, heads, strict=True):
            if isinstance(head, Head):
                item.tag, item.size, item.modified_at = head.tag, head.size, head.modified_at
        yield from chunk


def _walk_local(pattern: str, excludes: Callable[[str], bool]) -> Iterator[Listed]:
    root, glob = glob_root(pattern)
    if glob is None and os.path.isfile(root):
        yield _local_file(root, os.path.basename(root), os.path.realpath(os.path.dirname(root)))
        return
    if not os.path.isdir(root):
        raise UserError(f"{root} does not exist")
    matches = key_matcher(glob)
    deep = glob is None or "**" in glob
    depth = glob.count("/") if glob is not None else 0
    real_root = os.path.realpath(root)
    stack = [(root, 0)]
    while stack:
        folder, level = stack.pop()
        enters = deep or level < depth
        folders = []
        entries = _visible_entries(folder, root, names_dots(glob))
        if level and (unread := _unread_folder(folder, root)) is not None:
            yield unread
            continue
        for entry, path, key in entries:
            if excludes(printable_path(key)):
                continue
            if entry.is_folder:
                if enters:
                    folders.append((path, level + 1))
            # A linked folder is not entered, so it is listed, whatever the glob would match in it.
            elif matches(printable_path(key)) or (enters and entry.is_link and os.path.isdir(path)):
                yield _local_file(path, key, real_root)
        stack.extend(reversed(folders))


def _unread_folder(folder: str, root: str) -> Listed | None:
    """Return the failed sample of a folder that cannot be listed; None for one that can."""
    try:
        os.scandir(folder).close()
    except OSError as error:
        uri, key = printable_path(folder), printable_path(os.path.relpath(folder, root))
        kind = "permission_denied" if isinstance(error, PermissionError) else "not_found"
        return Listed(key=f"{key}/", uri=uri, error=SampleError(kind, f"{uri}: {error.strerror}"))
    return None


def _visible_entries(folder: str, root: str, dots: bool) -> Iterator[tuple[FolderEntry, str, str]]:
    """Yield the entries of a folder with path and key; those that begin with a dot only if `dots`."""
    for entry in sorted_entries(folder):
        if dots or not entry.name.startswith("."):
            path = os.path.join(folder, entry.name)
            yield entry, path, os.path.relpath(path, root)


def _local_file(path: str, key: str, real_root: str) -> Listed:
    uri = printable_path(path)
    raw = "" if uri == path else os.fsencode(path).hex()
    # Two names that are not text may print alike; a digest of its bytes makes the key unique.
    suffix = f"#{content_hash(os.fsencode(key))[:8]}" if raw else ""
    item = Listed(key=printable_path(key) + suffix, uri=uri, locator=raw)
    try:
        if os.path.islink(path) and not _is_inside(os.path.realpath(path), real_root):
            item.error = SampleError("path_escape", f"{uri} is a link that leads outside its source")
            return item
        info = os.stat(path)
    except OSError as error:
        item.error = SampleError("not_found", f"{uri}: {error.strerror}")
        return item
    if stat.S_ISDIR(info.st_mode):
        item.error = SampleError(
            "linked_folder", f"{uri} is a link to a folder; name the folder as a source of its own"
        )
    elif not stat.S_ISREG(info.st_mode):
        item.error = SampleError("not_a_file", f"{uri} is a device, socket or pipe")
    item.size, item.tag = info.st_size, file_tag(info)
    item.modified_at = datetime.fromtimestamp(info.st_mtime, UTC)
    return item


def _is_inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _walk_remote(pattern: str, opener: ObjectOpener) -> Iterator[Listed]:
    root, glob = glob_root(pattern)
    fs, path = opener.filesystem(root)
    if glob is None and fs.isfile(path):
        yield _remote_object(root, path.rsplit("/", 1)[-1], fs.info(path))
    else:
        yield from _walk_filesystem(fs, path, root, glob)


def _walk_filesystem(fs: Any, path: str, root: str, glob: str | None) -> Iterator[Listed]:
    matches, dots = key_matcher(glob), names_dots(glob)
    for info in list_objects(fs, path, deep=glob is None or "/" in glob or "**" in glob):
        key = str(info["name"])[len(path) :].lstrip("/")
        if key and matches(key) and (dots or "/." not in f"/{key}"):
            # Not the file system's own name of it, which may omit the host.
            yield _remote_object(f"{root.rstrip('/')}/{key}", key, info)


def _walk_web(pattern: str, opener: ObjectOpener) -> Iterator[Listed]:
    """Yield one sample for a URL, or for each alternative of its braces; a glob is resolved by index pages.

    Raises:
        UserError: when the one URL, or an index page, cannot be read.
    """
    root, glob = glob_root(pattern)
    if glob is None:
        (head,) = opener.http.heads([root])
        # A server that does not answer HEAD may still answer GET.
        if isinstance(head, SampleError) and head.error_class not in ("http_403", "http_405", "http_501"):
            raise UserError(str(head))
        yield Listed(key=unquote(redact_url(root).rpartition("/")[2]), uri=root)
    elif not WILD.search(glob):
        yield from (
            Listed(key=unquote(redact_url(each)), uri=f"{root}/{each}") for each in alternatives(glob)
        )
    else:
        depth = _DEEPEST if "**" in glob else glob.count("/") + 1
        matches, dots, keys = key_matcher(glob), names_dots(glob), Keys()
        for url, error in IndexPages(opener.http, root, depth).files():
            below = url[len(root) :].lstrip("/")
            key = unquote(redact_url(below))
            if error is not None:
                item = Listed(key=key, uri=url, error=error)
            elif key and matches(key) and (dots or "/." not in f"/{key}"):
                item = Listed(key=key, uri=url)
            else:
                continue
            # Links that differ in their query alone have one key.
            keys.make_unique(item, declared=False)
            yield item


def _remote_object(uri: str, key: str, info: dict[str, Any]) -> Listed:
    return Listed(
        key=key, uri=uri, tag=remote_tag(info), size=info.get("size"), modified_at=modified_at(info)
    )
