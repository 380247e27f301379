"""Walk what a glob names: local folders, file systems of fsspec, index pages of web servers."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from urllib.parse import unquote

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.objects.http_client import cause, is_web, shown
from mm_resources.objects.http_objects import Head
from mm_resources.objects.opener import ObjectOpener, file_tag, objects_below, printable, remote_tag
from mm_resources.sources.base import Listed
from mm_resources.sources.globs import (
    WILD,
    alternatives,
    asks_for_dots,
    glob_regex,
    glob_root,
)
from mm_resources.sources.sorted_folder import entries
from mm_resources.storage.filesystems import modified_at

_DEEPEST = 32  # folders; index pages may link each other without end
# HEAD requests that are under way or answered and not yet listed.
_HEADS_AT_ONCE = 256


def walk(uri: str, opener: ObjectOpener) -> Iterator[Listed]:
    """What a path, folder, glob or URL names, streaming, in a stable order.

    Raises:
        OSError, UserError: when the source as a whole cannot be listed.
    """
    if is_web(uri):
        return with_heads(walk_web(uri, opener), opener)
    return walk_remote(uri, opener) if "://" in uri else walk_local(uri)


def with_heads(items: Iterable[Listed], opener: ObjectOpener) -> Iterator[Listed]:
    """The items, those behind http(s) URLs with size, tag and time from HEAD; one that does not answer stays untagged."""
    stream = iter(items)
    while chunk := list(islice(stream, _HEADS_AT_ONCE)):
        asked = [item for item in chunk if opener.fetching.tags and item.error is None and is_web(item.uri)]
        for item, head in zip(
            asked, opener.web.heads(item.uri for item in asked) if asked else (), strict=True
        ):
            if isinstance(head, Head):
                item.tag, item.size, item.modified_at = head.tag, head.size, head.modified_at
        yield from chunk


def walk_local(pattern: str) -> Iterator[Listed]:
    root, rest = glob_root(pattern)
    if rest is None and os.path.isfile(root):
        yield _local(root, os.path.basename(root), os.path.realpath(os.path.dirname(root)))
        return
    if not os.path.isdir(root):
        raise UserError(f"{root} does not exist")
    wanted = _wanted(rest)
    deep = rest is None or "**" in rest
    depth = rest.count("/") if rest is not None else 0
    dotted = asks_for_dots(rest)
    real = os.path.realpath(root)
    stack = [(root, 0)]
    while stack:
        folder, level = stack.pop()
        folders = []
        for entry in entries(folder):
            if entry.name.startswith(".") and not dotted:
                continue
            path = os.path.join(folder, entry.name)
            key = os.path.relpath(path, root)
            inner = deep or level < depth
            if entry.is_folder:
                if inner:
                    folders.append((path, level + 1))
            # A linked folder is not walked, so it is named, whatever the glob would have found in it.
            elif wanted(printable(key)) or (inner and entry.is_link and os.path.isdir(path)):
                yield _local(path, key, real)
        stack.extend(reversed(folders))


def _wanted(rest: str | None) -> Callable[[str], object]:
    if rest is None:
        return lambda key: True
    # Thousands of numbered shards are looked up, not tried one after the other.
    each = alternatives(rest)
    return set(each).__contains__ if not WILD.search(rest) else glob_regex(rest).match


def _local(path: str, key: str, real_root: str) -> Listed:
    uri, raw = printable(path), "" if printable(path) == path else os.fsencode(path).hex()
    # Two names may be shown alike; a name that is not text is told apart by a digest of its bytes.
    item = Listed(
        key=printable(key) + (f"#{content_hash(os.fsencode(key))[:8]}" if raw else ""), uri=uri, locator=raw
    )
    try:
        if os.path.islink(path) and not _inside(os.path.realpath(path), real_root):
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


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def walk_remote(pattern: str, opener: ObjectOpener) -> Iterator[Listed]:
    root, rest = glob_root(pattern)
    fs, path = opener.filesystem(root)
    if rest is None and fs.isfile(path):
        yield _remote(root, path.rsplit("/", 1)[-1], fs.info(path))
    else:
        yield from _below(fs, path, root, rest)


def _below(fs: Any, path: str, root: str, rest: str | None, depth: int | None = None) -> Iterator[Listed]:
    wanted, dotted = _wanted(rest), asks_for_dots(rest)
    for info in objects_below(fs, path, deep=rest is None or "/" in rest or "**" in rest, depth=depth):
        below = str(info["name"])[len(path) :].lstrip("/")
        key = unquote(shown(below)) if is_web(root) else below
        if key and wanted(key) and (dotted or "/." not in f"/{key}"):
            # Not what the file system calls it, which may leave out the host.
            yield _remote(f"{root.rstrip('/')}/{below}", key, info)


def walk_web(pattern: str, opener: ObjectOpener) -> Iterator[Listed]:
    """A URL is one sample; so is each alternative of its braces. Anything else is looked up in the server's index pages.

    Raises:
        UserError: when the one URL, or an index page, cannot be read.
    """
    root, rest = glob_root(pattern)
    if rest is None:
        (head,) = opener.web.heads([root])
        # A server that will not answer HEAD may yet answer GET.
        if isinstance(head, SampleError) and head.error_class not in ("http_403", "http_405", "http_501"):
            raise UserError(str(head))
        yield Listed(key=unquote(shown(root).rpartition("/")[2]), uri=root)
    elif not WILD.search(rest):
        yield from (Listed(key=unquote(shown(each)), uri=f"{root}/{each}") for each in alternatives(rest))
    else:
        import aiohttp

        fs, _ = opener.filesystem(root)
        try:
            for item in _below(fs, f"{root}/", root, rest, _DEEPEST if "**" in rest else rest.count("/") + 1):
                item.tag = ""  # an index page says nothing of its objects
                yield item
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UserError(str(cause(root, error))) from error


def _remote(uri: str, key: str, info: dict[str, Any]) -> Listed:
    return Listed(
        key=key, uri=uri, tag=remote_tag(info), size=info.get("size"), modified_at=modified_at(info)
    )
