"""Text records: JSON lines, CSV and Parquet rows, each a sample whose content is its text field as UTF-8.

A record's locator is its byte range (JSON lines, CSV) or row number (Parquet), so that one record can be read again
without reading the file.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_embed_kernels.spec import SourceSpec
from mm_resources.hashes import HashSet
from mm_resources.sources.base import Listed, Source, typed

csv.field_size_limit(64 << 20)


@dataclass(frozen=True)
class Record:
    """One row of a file: where it lies, its fields, or why it cannot be read."""

    locator: str
    fields: dict[str, Any]
    error: SampleError | None = None


class RecordFile(Source):
    """Base of the record kinds: a subclass reads one file format."""

    endings: ClassVar[tuple[str, ...]] = ()
    whole = False

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is not None and spec.uri.lower().endswith(cls.endings)

    @property
    def flavour(self) -> str:
        return f"{self.name}:{self.spec.record.text if self.spec.record else ''}"

    @abstractmethod
    def records(self, uri: str) -> Iterator[Record]:
        """All records of a file, streaming."""

    @abstractmethod
    def record(self, uri: str, locator: str) -> dict[str, Any]:
        """The fields of one record."""

    def list(self) -> Iterator[Listed]:
        mapping = self.spec.record
        if mapping is None:
            raise UserError(f"source {self.spec.name}: format {self.name} needs `record` with at least `text`")
        seen = _Counted()
        for file in self._files.list():
            if file.error is None and file.locator:
                file.error = SampleError("bad_name", f"{file.uri}: a file of records needs a name that is UTF-8; rename it")
            if file.error:
                yield file
                continue
            try:
                for record in self.records(file.uri):
                    item, declared = self._listed(record)
                    item.uri, item.tag, item.modified_at = file.uri, file.tag, file.modified_at
                    self._make_unique(item, declared, seen)
                    yield item
            except UserError as error:
                # What was read of it stands; the rest of the file is one failed sample, and the other files go on.
                file.error = SampleError("bad_table", str(error))
                yield file

    @cached_property
    def _files(self) -> Source:
        from mm_resources.sources.files import Files

        return Files(self.spec.model_copy(update={"record": None, "format": None}), {})

    def objects(self) -> Iterator[tuple[str, str]]:
        return ((uri, tag) for uri, tag in self._files.objects() if self._lists(uri))

    def _lists(self, uri: str) -> bool:
        """Whether a file stands in the listing: an empty one has no record that could."""
        try:
            return any(True for _ in self.records(uri))
        except UserError:
            return True

    @staticmethod
    def _make_unique(item: Listed, declared: bool, seen: _Counted) -> None:
        """Number a key that was seen before; an id that stands twice is a failure, an equal text is not."""

        wanted, times = item.key, seen.count(item.key)
        if times == 1:
            return
        if declared and item.error is None:
            item.error = SampleError("duplicate_key", f"the id {wanted!r} stands {times} times in the source")
        item.key = f"{wanted}#{times}"
        while seen.count(item.key) > 1:
            times += 1
            item.key = f"{wanted}#{times}"

    def _listed(self, record: Record) -> tuple[Listed, bool]:
        """The record as a sample, and whether its key is a declared id."""
        mapping = self.spec.record
        assert mapping is not None
        fields, declared = record.fields, False
        item = Listed(key=f"record-{record.locator}", uri="", locator=record.locator, error=record.error)
        if record.error:
            return item, declared
        text = fields.get(mapping.text)
        if mapping.id is not None and fields.get(mapping.id) not in (None, ""):
            item.key, declared = str(fields[mapping.id]), True
        elif isinstance(text, str):
            item.key = content_hash(text.encode("utf-8", "surrogatepass"))
        try:
            item.size = len(_content(fields, mapping.text))
            item.label, item.link, item.group = (_text(fields, name) for name in (mapping.label, mapping.link, mapping.group))
            item.columns = {name: typed(fields[name], kind) for name, kind in self.schema.items() if name in fields and name != "label"}
            item.key.encode("utf-8")
        except UnicodeEncodeError:
            item.error = SampleError("encoding_unknown", "a field of the record holds unpaired surrogates")
        except SampleError as error:
            item.error = error
        item.key = item.key.encode("utf-8", "backslashreplace").decode("utf-8")
        return item, declared

    def tag(self, uri: str, locator: str) -> str | None:
        return self._files.tag(uri, "")

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        assert self.spec.record is not None
        try:
            return _content(self.record(uri, locator), self.spec.record.text)
        except FileNotFoundError:
            raise SampleError("not_found", f"{uri} was listed but is gone", retryable=True) from None
        except OSError as error:
            raise SampleError("fetch_error", f"{uri}: {error}", retryable=True) from error


class _Counted:
    """How often each key was wanted: a digest for every key, a number only for those that come again."""

    def __init__(self) -> None:
        self._seen, self._again = HashSet(), dict[bytes, int]()

    def count(self, key: str) -> int:
        digest = hashlib.sha256(key.encode()).digest()
        if self._seen.add(digest):
            return 1
        self._again[digest] = self._again.get(digest, 1) + 1
        return self._again[digest]


def _text(fields: dict[str, Any], name: str | None) -> str | None:
    value = fields.get(name) if name else None
    if value in (None, ""):
        return None
    text = str(value)
    text.encode("utf-8")
    return text


def _content(fields: dict[str, Any], name: str) -> bytes:
    """The record's content: its text field as UTF-8."""
    if name not in fields:
        raise SampleError("missing_field", f"the record has no field {name!r}; it has: {', '.join(map(str, fields))}")
    value = fields[name]
    if not isinstance(value, str):
        raise SampleError("schema_mismatch", f"the text field {name!r} holds {type(value).__name__}, not text")
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise SampleError("encoding_unknown", f"the text field {name!r} holds unpaired surrogates") from None


class _Ranges(RecordFile):
    """Formats whose records are byte ranges of the file."""

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        start, size = (int(part) for part in locator.split("+"))
        stream = self._open(uri)
        stream.seek(start)
        return self._parse(stream.read(size), uri)

    def _open(self, uri: str) -> BinaryIO:
        """The file, opened once: a batch's records mostly lie in one file."""
        opened: dict[str, BinaryIO] = self.__dict__.setdefault("_opened", {})
        if uri not in opened:
            for other in opened.values():
                other.close()
            opened.clear()
            opened[uri] = _binary(uri)
        return opened[uri]

    @abstractmethod
    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        """One record's bytes to its fields; raises SampleError."""


class JsonLines(_Ranges):
    """One JSON object a line."""

    name = "jsonl"
    endings = (".jsonl", ".ndjson")

    def records(self, uri: str) -> Iterator[Record]:
        start = 0
        with _binary(uri) as stream:
            for line in stream:
                locator = f"{start}+{len(line)}"
                start += len(line)
                if not line.strip():
                    continue
                try:
                    yield Record(locator, self._parse(line, uri))
                except SampleError as error:
                    yield Record(locator, {}, error)

    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SampleError("bad_record", f"{uri}: a line is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise SampleError("bad_record", f"{uri}: a line is {type(found).__name__}, not a JSON object")
        return found


class Csv(_Ranges):
    """Comma- or tab-separated rows with a header."""

    name = "csv"
    endings = (".csv", ".tsv")

    def records(self, uri: str) -> Iterator[Record]:
        with _binary(uri) as stream:
            lines = _CountedLines(stream)
            rows = csv.reader(lines, delimiter=self._delimiter(uri))
            try:
                header = next(rows, None)
            except csv.Error as error:
                raise UserError(f"{uri} cannot be read as CSV: {error}") from error
            if lines.damaged:
                raise UserError(f"{uri}: the header is not UTF-8")
            if header is None:
                return
            while True:
                start, lines.damaged = lines.read, False
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    yield Record(f"{start}+{lines.read - start}", {}, SampleError("bad_record", f"{uri}: {error}"))
                    continue
                if row:
                    locator = f"{start}+{lines.read - start}"
                    try:
                        yield Record(locator, self._fields(header, row, lines.damaged, uri))
                    except SampleError as error:
                        yield Record(locator, {}, error)

    def _fields(self, header: list[str], row: list[str], damaged: bool, uri: str) -> dict[str, Any]:
        if damaged:
            raise SampleError("encoding_unknown", f"{uri}: a row is not UTF-8")
        if len(row) != len(header):
            raise SampleError("bad_record", f"{uri}: a row has {len(row)} fields, the header {len(header)}")
        return dict(zip(header, row, strict=True))

    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        header = self._headers(uri)
        try:
            row = next(csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=self._delimiter(uri)), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise SampleError("bad_record", f"{uri}: {error}") from None
        return self._fields(header, row, False, uri)

    def _headers(self, uri: str) -> list[str]:
        known: dict[str, list[str]] = self.__dict__.setdefault("_known_headers", {})
        if uri not in known:
            with _binary(uri) as stream:
                known[uri] = next(csv.reader(_CountedLines(stream), delimiter=self._delimiter(uri)))
        return known[uri]

    @staticmethod
    def _delimiter(uri: str) -> str:
        return "\t" if uri.lower().endswith(".tsv") else ","


class _CountedLines:
    """Text lines for `csv`, counting the bytes that it has consumed; what is not UTF-8 is marked."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.read, self.damaged = stream, 0, False

    def __iter__(self) -> _CountedLines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline()
        if not line:
            raise StopIteration
        first = self.read == 0
        self.read += len(line)
        try:
            return line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode("utf-8", "replace")


class ParquetRows(RecordFile):
    """Rows of a Parquet file; the locator is the row's number."""

    name = "parquet"
    endings = (".parquet",)

    def records(self, uri: str) -> Iterator[Record]:
        import pyarrow.parquet as parquet

        row = 0
        with _binary(uri) as stream:
            try:
                for batch in parquet.ParquetFile(stream).iter_batches(batch_size=1024):
                    for fields in batch.to_pylist():
                        yield Record(str(row), fields)
                        row += 1
            except (pa.ArrowInvalid, OSError) as error:
                # pyarrow raises OSError for damage as well; one of the operating system or network has a number.
                if getattr(error, "errno", None) is not None:
                    raise
                raise UserError(f"{uri} cannot be read as Parquet: {' '.join(str(error).split())}") from error

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        group, offset = self._place(uri, int(locator))
        found: list[dict[str, Any]] = self._group(uri, group).slice(offset, 1).to_pylist()
        if not found:
            raise SampleError("source_changed", f"{uri} was listed with a row {locator} and has none now")
        return found[0]

    @cached_property
    def _cached(self) -> dict[str, Any]:
        return {}

    def _file(self, uri: str) -> Any:
        import pyarrow.parquet as parquet

        if self._cached.get("uri") != uri:
            file = parquet.ParquetFile(_binary(uri))
            edges, total = [], 0
            for i in range(file.num_row_groups):
                edges.append(total)
                total += file.metadata.row_group(i).num_rows
            self._cached.update(uri=uri, file=file, edges=edges, group=None)
        return self._cached["file"]

    def _place(self, uri: str, row: int) -> tuple[int, int]:
        import bisect

        self._file(uri)
        group = bisect.bisect_right(self._cached["edges"], row) - 1
        return group, row - self._cached["edges"][group]

    def _group(self, uri: str, group: int) -> Any:
        if self._cached["group"] != group:
            self._cached.update(group=group, table=self._file(uri).read_row_group(group, columns=[self.spec.record.text]))  # type: ignore[union-attr]
        return self._cached["table"]

    def __getstate__(self) -> dict[str, Any]:
        return {"spec": self.spec, "schema": self.schema}


def open_records(uri: str) -> Iterator[Record]:
    """All records of a table file, by its ending; a record that cannot be read carries its error.

    Raises:
        UserError: for an unknown ending or a file that cannot be opened.
    """
    from mm_embed_kernels.spec import RecordMapping

    for kind in (JsonLines, Csv, ParquetRows):
        if uri.lower().endswith(kind.endings):
            source = kind(SourceSpec(name="table", modality="text", uri=uri, record=RecordMapping(text="-")), {})
            try:
                yield from source.records(uri)
            except (OSError, ValueError) as error:  # ValueError: not a Parquet file
                raise UserError(f"table {uri} cannot be read: {error}") from error
            return
    raise UserError(f"table {uri}: the ending is none of .csv, .tsv, .jsonl, .ndjson, .parquet")


def _binary(uri: str) -> BinaryIO:
    if "://" not in uri:
        return open(uri, "rb")
    import fsspec

    stream: BinaryIO = fsspec.open(uri, "rb").open()
    return stream
