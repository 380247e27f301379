"""Files by glob, on local disk or any fsspec file system; labels from the parent folder or a side table."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec import SAMPLE_FIELDS, SourceSpec
from mm_embed_kernels.spec import SideTable as SideTableSpec
from mm_resources.blobs import LARGE_BYTES
from mm_resources.sources.base import Listed, Source, in_utc, typed
from mm_resources.sources.records import open_records

_MAGIC = re.compile(r"[*?\[{]")
_ESCAPED = re.compile(r"\[([*?\[{])\]")


class Files(Source):
    """``uri`` is a file, a folder (everything below it) or a glob; its root is the longest prefix without a wildcard.

    Names that begin with a dot, and what lies in folders of such names, are left out unless the glob asks for a dot.
    """

    name = "files"

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is None and spec.track_of is None

    def list(self) -> Iterator[Listed]:
        side = SideTable(self.spec, self.schema)
        yield from side.refused
        if side.rows:
            side.count_names(item.key for item in self._walk())
        for item in self._walk():
            if self.spec.label is not None:
                parts = (item.key if "/" in item.key else item.uri).rstrip("/").split("/")
                item.label = parts[-2] if len(parts) > 1 else None
            yield side.join(item) if item.error is None else item

    def _walk(self) -> Iterator[Listed]:
        return _walk_remote(self.spec.uri) if "://" in self.spec.uri else _walk_local(self.spec.uri)

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((item.uri, item.tag) for item in self._walk())

    def tag(self, uri: str, locator: str) -> str | None:
        return object_tag(os.fsdecode(bytes.fromhex(locator)) if locator else uri)

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
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
        return self._opened(uri, locator)[0]

    def _opened(self, uri: str, locator: str) -> tuple[BinaryIO, int]:
        import fsspec

        try:
            if "://" not in uri:
                path = os.fsdecode(bytes.fromhex(locator)) if locator else uri
                return _open_file(path)
            stream: Any = fsspec.open(uri, "rb").open()
            return cast(BinaryIO, stream), stream.size or 0
        except FileNotFoundError:
            raise SampleError("not_found", f"{uri} was listed but is gone", retryable=True) from None
        except PermissionError:
            raise SampleError("permission_denied", f"{uri} may not be read", retryable=True) from None
        except OSError as error:
            raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error


def _open_file(path: str) -> tuple[BinaryIO, int]:
    """A regular file and its size; what was listed as one may be a pipe by now, which would be waited for for ever."""
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))  # noqa: SIM115 - for the caller to close
    info = os.fstat(stream.fileno())
    if not stat.S_ISREG(info.st_mode):
        stream.close()
        raise SampleError("not_a_file", f"{_printable(path)} is a device, socket or pipe")
    return stream, info.st_size


def object_tag(uri: str) -> str | None:
    """What `Listed.tag` is now: a local file's size and mtime, an object's etag; None when it is gone."""
    try:
        if "://" not in uri:
            info = os.stat(uri)
            return f"{info.st_size}-{info.st_mtime_ns}"
        from fsspec.core import url_to_fs

        fs, path = url_to_fs(uri)
        fs.invalidate_cache(fs._parent(path))  # a listing that it keeps says what was, not what is
        return _remote_tag(fs.info(path))
    except OSError:
        return None


def glob_root(pattern: str) -> tuple[str, str | None]:
    """(longest folder prefix without a wildcard, glob below it or None for the whole).

    A path that exists as it is written is no pattern; ``[*]`` and its like stand for the character itself.
    """
    literal = _ESCAPED.sub(r"\1", pattern).rstrip("/") or "/"
    found = _MAGIC.search(_ESCAPED.sub("\0\0\0", pattern))
    if found is None or ("://" not in pattern and os.path.exists(pattern)):
        return (literal if found is None else pattern.rstrip("/")), None
    root, _, _ = pattern[: found.start()].rpartition("/")
    rest = pattern[len(root) + 1 :]
    if "://" in pattern and "://" not in root:
        root, rest = pattern[: pattern.index("://") + 3], pattern[pattern.index("://") + 3 :]
    return _ESCAPED.sub(r"\1", root), rest


def glob_regex(pattern: str) -> re.Pattern[str]:
    """A glob over relative keys: ``*`` and ``?`` inside one folder, ``**`` across folders, ``{a,b}`` alternatives."""
    from fsspec.utils import glob_translate

    return re.compile("|".join(f"(?:{glob_translate(each)})" for each in _alternatives(pattern)))


def _alternatives(pattern: str) -> list[str]:
    """``*.{jpg,png}`` -> ``*.jpg``, ``*.png``."""
    found = re.search(r"\{([^{}]*)\}", pattern)
    if found is None:
        return [pattern]
    return [each for part in found[1].split(",") for each in _alternatives(pattern[: found.start()] + part + pattern[found.end() :])]


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
    dotted = _asks_for_dots(rest)
    real = os.path.realpath(root)
    stack = [(root, 0)]
    while stack:
        folder, level = stack.pop()
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        folders = []
        for entry in entries:
            if entry.name.startswith(".") and not dotted:
                continue
            key = os.path.relpath(entry.path, root)
            inner = deep or level < depth
            if entry.is_dir(follow_symlinks=False):
                if inner:
                    folders.append((entry.path, level + 1))
            # A linked folder is not walked, so it is named, whatever the glob would have found in it.
            elif wanted(_printable(key)) or (inner and entry.is_symlink() and entry.is_dir()):
                yield _local(entry.path, key, real)
        stack.extend(reversed(folders))


def _wanted(rest: str | None) -> Callable[[str], object]:
    return glob_regex(rest).match if rest is not None else lambda key: True


def _asks_for_dots(rest: str | None) -> bool:
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


def _walk_remote(pattern: str) -> Iterator[Listed]:
    from fsspec.core import url_to_fs

    root, rest = glob_root(pattern)
    fs, path = url_to_fs(root)
    wanted, dotted = _wanted(rest), _asks_for_dots(rest)
    if rest is None and fs.isfile(path):
        yield _remote(fs, fs.info(path), path.rsplit("/", 1)[-1])
        return
    for _, _, found in fs.walk(path, detail=True, on_error="raise"):
        for name in sorted(found):
            info = found[name]
            key = str(info["name"])[len(path) :].lstrip("/")
            if key and wanted(key) and (dotted or "/." not in f"/{key}"):
                yield _remote(fs, info, key)


def _remote(fs: Any, info: dict[str, Any], key: str) -> Listed:
    uri = fs.unstrip_protocol(info["name"])
    return Listed(key=key, uri=uri, tag=_remote_tag(info), size=info.get("size"), modified_at=_modified(info))


def _modified(info: dict[str, Any]) -> datetime | None:
    """When an object was written, under any of the names that file systems give it."""
    modified = info.get("LastModified") or info.get("mtime") or info.get("created")
    if isinstance(modified, (int, float)):
        return datetime.fromtimestamp(modified, UTC)
    return in_utc(modified) if isinstance(modified, datetime) else None


def _remote_tag(info: dict[str, Any]) -> str:
    return str(info.get("ETag") or f"{info.get('size')}-{_modified(info)}")


class SideTable:
    """Columns from a side table, by the sample's key or, where that is unique, its file name.

    A row that cannot be read, or contradicts an earlier one of the same key, is `refused`: a failed sample of its own,
    since nobody can tell which files it spoke of.
    """

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        self.spec, self.schema = spec.table, schema
        self.rows: dict[str, dict[str, Any]] = {}
        self.refused: list[Listed] = []
        self.ambiguous: set[str] = set()
        if spec.table is not None:
            self._load(spec.table)

    def _load(self, table: SideTableSpec) -> None:
        wanted = [table.key, *table.columns]
        for record in open_records(table.uri):
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
