"""Files by glob, on local disk or any fsspec file system; labels from the parent folder or a side table."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast
from urllib.parse import unquote

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec import SAMPLE_FIELDS, SourceSpec
from mm_embed_kernels.spec import SideTable as SideTableSpec
from mm_resources.blobs import LARGE_BYTES
from mm_resources.http_client import cause, is_web, shown
from mm_resources.sources.base import Listed, Source, typed
from mm_resources.sources.folders import entries
from mm_resources.sources.objects import Objects, modified_at, objects_below, remote_tag, unopened
from mm_resources.sources.records import open_records

_MAGIC = re.compile(r"[*?\[{]")
_WEB_MAGIC = re.compile(r"[*\[{]")
_WILD = re.compile(r"[*?\[]")
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_MOST_ALTERNATIVES = 100_000
_DEEPEST = 32  # folders; index pages may link each other without end
_ESCAPED = re.compile(r"\[([*?\[{])\]")


class Files(Source):
    """``uri`` is a file, a folder (everything below it) or a glob; its root is the longest prefix without a wildcard.

    Names that begin with a dot, and what lies in folders of such names, are left out unless the glob asks for a dot.
    """

    name = "files"

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is None and spec.track_of is None

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        super().__init__(spec, schema)
        self.reach = Objects(spec.fetch)

    def list(self) -> Iterator[Listed]:
        side = SideTable(self.spec, self.schema, self.reach)
        yield from side.refused
        if side.rows:
            side.count_names(item.key for item in self._walk())
        for item in self._walk():
            if self.spec.label is not None:
                parts = (item.key if "/" in item.key else item.uri).rstrip("/").split("/")
                item.label = parts[-2] if len(parts) > 1 else None
            yield side.join(item) if item.error is None else item

    def _walk(self) -> Iterator[Listed]:
        if is_web(self.spec.uri):
            return self.reach.tagged(_walk_web(self.spec.uri, self.reach))
        return _walk_remote(self.spec.uri, self.reach) if "://" in self.spec.uri else _walk_local(self.spec.uri)

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in self._walk())

    def tag(self, uri: str, locator: str) -> str | None:
        return self.reach.tag(os.fsdecode(bytes.fromhex(locator)) if locator else uri)

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        if is_web(uri):
            return self.reach.web.fetch(uri)
        stream, size = self._opened(uri, locator)
        if size > LARGE_BYTES:
            return stream
        with stream:
            try:
                return bytes(stream.read())
            except OSError as error:
                raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error

    def open(self, uri: str, locator: str) -> BinaryIO:
        """A seekable stream over one sample, for the caller to close; raises as `fetch`."""
        return self.reach.web.open(uri) if is_web(uri) else self._opened(uri, locator)[0]

    def _opened(self, uri: str, locator: str) -> tuple[BinaryIO, int]:
        try:
            if "://" not in uri:
                return open_file(os.fsdecode(bytes.fromhex(locator)) if locator else uri)
            stream: Any = self.reach.open(uri)
            return cast(BinaryIO, stream), _size(stream)
        except OSError as error:
            raise unopened(uri, error) from error


def _size(stream: Any) -> int:
    """Bytes of a stream of fsspec's, of which not every kind says so (sftp)."""
    if getattr(stream, "size", None) is None:
        stream.seek(0, os.SEEK_END)
        size: int = stream.tell()
        stream.seek(0)
        return size
    return int(stream.size)


def open_file(path: str) -> tuple[BinaryIO, int]:
    """A regular file and its size; what was listed as one may be a pipe by now, which would be waited for for ever."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - for the caller to close
    info = os.fstat(stream.fileno())
    if not stat.S_ISREG(info.st_mode):
        stream.close()
        raise SampleError("not_a_file", f"{_printable(path)} is a device, socket or pipe")
    return stream, info.st_size


def glob_root(pattern: str) -> tuple[str, str | None]:
    """(longest folder prefix without a wildcard, glob below it or None for the whole).

    A path that exists as it is written is no pattern; ``[*]`` and its like stand for the character itself.
    """
    literal = _ESCAPED.sub(r"\1", pattern).rstrip("/") or "/"
    # In a URL a question mark begins the query.
    magic = _WEB_MAGIC if is_web(pattern) else _MAGIC
    found = magic.search(_ESCAPED.sub("\0\0\0", pattern))
    if found is None or ("://" not in pattern and os.path.exists(pattern)):
        return (literal if found is None else pattern.rstrip("/")), None
    root, _, _ = pattern[: found.start()].rpartition("/")
    rest = pattern[len(root) + 1 :]
    if "://" in pattern and "://" not in root:
        root, rest = pattern[: pattern.index("://") + 3], pattern[pattern.index("://") + 3 :]
    return _ESCAPED.sub(r"\1", root), rest


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over relative keys: ``*`` and ``?`` inside one folder, ``**`` across folders, ``{a,b}`` and ``{000..010}`` alternatives."""
    from fsspec.utils import glob_translate

    return re.compile("|".join(f"(?:{glob_translate(each)})" for each in alternatives(pattern)))


def alternatives(pattern: str) -> list[str]:
    """``*.{jpg,png}`` -> ``*.jpg``, ``*.png``; ``{08..10}`` -> ``08``, ``09``, ``10``, as WebDataset and shells write shards.

    Raises:
        UserError: when there are too many.
    """
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    parts = found[1].split(",")
    if numbers := _RANGE.fullmatch(found[1]):
        first, last, width = int(numbers[1]), int(numbers[2]), len(numbers[1])
        if last - first < _MOST_ALTERNATIVES:
            parts = [f"{number:0{width}d}" for number in range(first, last + 1)]
        else:
            raise UserError(f"{pattern}: {last - first + 1:,} alternatives are too many; use a wildcard")
    return [each for part in parts for each in alternatives(pattern[: found.start()] + part + pattern[found.end() :])]


def _walk_local(pattern: str) -> Iterator[Listed]:
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
            elif wanted(_printable(key)) or (inner and entry.is_link and os.path.isdir(path)):
                yield _local(path, key, real)
        stack.extend(reversed(folders))


def _wanted(rest: str | None) -> Callable[[str], object]:
    if rest is None:
        return lambda key: True
    # Thousands of numbered shards are looked up, not tried one after the other.
    each = alternatives(rest)
    return set(each).__contains__ if not _WILD.search(rest) else glob_regex(rest).match


def asks_for_dots(rest: str | None) -> bool:
    return rest is not None and "/." in f"/{rest}"


def _local(path: str, key: str, real_root: str) -> Listed:
    uri, raw = _printable(path), "" if _printable(path) == path else os.fsencode(path).hex()
    # Two names may be shown alike; a name that is not text is told apart by a digest of its bytes.
    item = Listed(key=_printable(key) + (f"#{content_hash(os.fsencode(key))[:8]}" if raw else ""), uri=uri, locator=raw)
    try:
        if os.path.islink(path) and not _inside(os.path.realpath(path), real_root):
            item.error = SampleError("path_escape", f"{uri} is a link that leads outside its source")
            return item
        info = os.stat(path)
    except OSError as error:
        item.error = SampleError("not_found", f"{uri}: {error.strerror}")
        return item
    if stat.S_ISDIR(info.st_mode):
        item.error = SampleError("linked_folder", f"{uri} is a link to a folder; name the folder as a source of its own")
    elif not stat.S_ISREG(info.st_mode):
        item.error = SampleError("not_a_file", f"{uri} is a device, socket or pipe")
    item.size, item.tag = info.st_size, f"{info.st_size}-{info.st_mtime_ns}"
    item.modified_at = datetime.fromtimestamp(info.st_mtime, UTC)
    return item


def _inside(path: str, root: str) -> bool:
    return path == root or path.startswith(root.rstrip("/") + "/")


def _printable(path: str) -> str:
    """A path as UTF-8 text; bytes that are not UTF-8 are shown as ``\\xNN`` (the locator keeps the real path)."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _walk_remote(pattern: str, reach: Objects) -> Iterator[Listed]:
    root, rest = glob_root(pattern)
    fs, path = reach.filesystem(root)
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


def _walk_web(pattern: str, reach: Objects) -> Iterator[Listed]:
    """A URL is one sample; so is each alternative of its braces. Anything else is looked up in the server's index pages.

    Raises:
        UserError: when the one URL, or an index page, cannot be read.
    """
    root, rest = glob_root(pattern)
    if rest is None:
        (head,) = reach.web.heads([root])
        # A server that will not answer HEAD may yet answer GET.
        if isinstance(head, SampleError) and head.error_class not in ("http_403", "http_405", "http_501"):
            raise UserError(str(head))
        yield Listed(key=unquote(shown(root).rpartition("/")[2]), uri=root)
    elif not _WILD.search(rest):
        yield from (Listed(key=unquote(shown(each)), uri=f"{root}/{each}") for each in alternatives(rest))
    else:
        import aiohttp

        fs, _ = reach.filesystem(root)
        try:
            for item in _below(fs, f"{root}/", root, rest, _DEEPEST if "**" in rest else rest.count("/") + 1):
                item.tag = ""  # an index page says nothing of its objects
                yield item
        except (aiohttp.ClientError, TimeoutError) as error:
            raise UserError(str(cause(root, error))) from error


def _remote(uri: str, key: str, info: dict[str, Any]) -> Listed:
    return Listed(key=key, uri=uri, tag=remote_tag(info), size=info.get("size"), modified_at=modified_at(info))


class SideTable:
    """Columns from a side table, by the sample's key or, where that is unique, its file name.

    A row that cannot be read, or contradicts an earlier one of the same key, is `refused`: a failed sample of its own,
    since nobody can tell which files it spoke of.
    """

    def __init__(self, spec: SourceSpec, schema: dict[str, str], reach: Objects) -> None:
        self.spec, self.schema, self.reach = spec.table, schema, reach
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: list[Listed] = []
        self.ambiguous: set[str] = set()
        if spec.table is not None:
            self._load(spec.table)

    def _load(self, table: SideTableSpec) -> None:
        wanted = [table.key, *table.columns]
        for record in open_records(table.uri, self.reach.fetching):
            if record.error:
                self._refuse(table, record.locator, record.error)
                continue
            lacking = [name for name in wanted if name not in record.fields]
            if lacking:
                raise UserError(f"side table {table.uri} has no column {lacking[0]!r}; it has: {', '.join(record.fields)}")
            key, row = str(record.fields[table.key]), {name: record.fields[name] for name in wanted}
            if self.rows.setdefault(key, row) != row:
                contradiction = f"{table.uri}: {key!r} stands more than once with different values; the first row counts"
                self._refuse(table, record.locator, SampleError("duplicate_row", contradiction))

    def _refuse(self, table: SideTableSpec, locator: str, error: SampleError) -> None:
        name = table.uri.rsplit("/", 1)[-1]
        self.refused.append(Listed(key=f"{name}#{locator}", uri=table.uri, error=error))

    def count_names(self, keys: Iterable[str]) -> None:
        """See all keys once: a row that names a file by its bare name speaks of no one if two files have that name."""
        counts: Counter[str] = Counter()
        for key in keys:
            name = key.rsplit("/", 1)[-1]
            if name in self.rows:
                counts[name] += 1
        self.ambiguous = {name for name, count in counts.items() if count > 1}

    def join(self, item: Listed) -> Listed:
        if self.spec is None:
            return item
        name = item.key.rsplit("/", 1)[-1]
        row = self.rows.get(item.key) or (self.rows.get(name) if name not in self.ambiguous else None)
        for name in self.spec.columns if row else ():
            value = row[name] if row else None
            if name in SAMPLE_FIELDS:
                setattr(item, name, None if value in (None, "") else str(value))
            if name in self.schema:
                try:
                    item.columns[name] = typed(value, self.schema[name])
                except SampleError as error:
                    item.error = error
        return item
