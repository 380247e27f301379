"""Files by glob, on local disk or any fsspec file system; labels from the parent folder or a side table."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec import SourceSpec
from mm_resources.blobs import LARGE_BYTES
from mm_resources.sources.base import Listed, Source, in_utc, typed
from mm_resources.sources.records import open_records

_MAGIC = re.compile(r"[*?\[{]")


class Files(Source):
    """``uri`` is a file, a folder (everything below it) or a glob; its root is the longest prefix without a wildcard."""

    name = "files"

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is None

    def list(self) -> Iterator[Listed]:
        side = _SideTable(self.spec, self.schema)
        walk = _walk_remote if "://" in self.spec.uri else _walk_local
        if side.rows:
            side.count_names(item.key for item in walk(self.spec.uri))
        for item in walk(self.spec.uri):
            if self.spec.label is not None:
                parts = (item.key if "/" in item.key else item.uri).rstrip("/").split("/")
                item.label = parts[-2] if len(parts) > 1 else None
            yield side.join(item) if item.error is None else item

    def tag(self, uri: str, locator: str) -> str | None:
        return None if "://" in uri else local_tag(os.fsdecode(bytes.fromhex(locator)) if locator else uri)

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        import fsspec

        try:
            if "://" not in uri:
                path = os.fsdecode(bytes.fromhex(locator)) if locator else uri
                if os.path.getsize(path) > LARGE_BYTES:
                    return open(path, "rb")
                with open(path, "rb") as file:
                    return file.read()
            stream: Any = fsspec.open(uri, "rb").open()
            if (stream.size or 0) > LARGE_BYTES:
                return cast(BinaryIO, stream)
            with stream:
                return bytes(stream.read())
        except FileNotFoundError:
            raise SampleError("not_found", f"{uri} was listed but is gone", retryable=True) from None
        except PermissionError:
            raise SampleError("permission_denied", f"{uri} may not be read", retryable=True) from None
        except OSError as error:
            raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error


def local_tag(path: str) -> str | None:
    """Size and mtime of a local file; None when it is gone."""
    try:
        info = os.stat(path)
    except OSError:
        return None
    return f"{info.st_size}-{info.st_mtime_ns}"


def glob_root(pattern: str) -> tuple[str, str | None]:
    """(longest folder prefix without a wildcard, glob below it or None for the whole)."""
    found = _MAGIC.search(pattern)
    if found is None:
        return pattern.rstrip("/"), None
    root, _, _ = pattern[: found.start()].rpartition("/")
    return root, pattern[len(root) + 1 :]


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
    wanted = glob_regex(rest) if rest is not None else None
    deep = rest is None or "**" in rest
    depth = rest.count("/") if rest is not None else 0
    real = os.path.realpath(root)
    stack = [(root, 0)]
    while stack:
        folder, level = stack.pop()
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
        folders = []
        for entry in entries:
            key = os.path.relpath(entry.path, root)
            if entry.is_dir(follow_symlinks=False):
                if deep or level < depth:
                    folders.append((entry.path, level + 1))
            elif (wanted is None or wanted.match(_printable(key))) and not (wanted is None and entry.name.startswith(".")):
                yield _local(entry.path, key, real)
        stack.extend(reversed(folders))


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
    wanted = glob_regex(rest) if rest is not None else None
    if rest is None and fs.isfile(path):
        yield _remote(fs, fs.info(path), path.rsplit("/", 1)[-1])
        return
    for _, _, found in fs.walk(path, detail=True, on_error="raise"):
        for name in sorted(found):
            info = found[name]
            key = str(info["name"])[len(path) :].lstrip("/")
            if key and (wanted is None or wanted.match(key)):
                yield _remote(fs, info, key)


def _remote(fs: Any, info: dict[str, Any], key: str) -> Listed:
    modified = info.get("LastModified") or info.get("mtime")
    if isinstance(modified, (int, float)):
        modified = datetime.fromtimestamp(modified, UTC)
    if isinstance(modified, datetime):
        modified = in_utc(modified)
    tag = info.get("ETag") or f"{info.get('size')}-{modified}"
    return Listed(key=key, uri=fs.unstrip_protocol(info["name"]), tag=str(tag), size=info.get("size"), modified_at=modified)


class _SideTable:
    """Columns from a side table, by the sample's key or, where that is unique, its file name."""

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        self.spec, self.schema = spec.table, schema
        self.rows: dict[str, dict[str, Any]] = {}
        self.ambiguous: set[str] = set()
        if spec.table is None:
            return
        wanted = [spec.table.key, *spec.table.columns]
        for record in open_records(spec.table.uri):
            if record.error:
                raise UserError(f"side table {spec.table.uri}: {record.error.message}")
            lacking = [name for name in wanted if name not in record.fields]
            if lacking:
                raise UserError(f"side table {spec.table.uri} has no column {lacking[0]!r}; it has: {', '.join(record.fields)}")
            self.rows[str(record.fields[spec.table.key])] = record.fields

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
            if name in ("label", "link", "group", "transcript"):
                setattr(item, name, None if value in (None, "") else str(value))
            if name in self.schema:
                try:
                    item.columns[name] = typed(value, self.schema[name])
                except SampleError as error:
                    item.error = error
        return item
