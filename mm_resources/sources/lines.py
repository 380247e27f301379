"""Tables of lines, JSON lines and CSV, also compressed.

A locator is a byte range in the unpacked file; in one of UTF-16, by its byte order mark, in its UTF-8.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import io
import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.identity import content_hash
from mm_resources.objects.byte_order_marks import open_utf8
from mm_resources.objects.compressed_streams import open_unpacked, uncompressed_name
from mm_resources.sources.records import Record, RecordFile

# A longer line is not read as a record, since it could fill the memory.
_LONGEST_LINE = 256 << 20
_LONGEST_FIELD = 64 << 20
# Values of a record, which take many times their bytes in memory; a text of 256 MiB has 3 million commas.
_MOST_VALUES = 8_000_000
_BUFFER = 1 << 20


class ByteRangeFile(RecordFile):
    """Base of the formats whose records are byte ranges of the file."""

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        start, size = (int(part) for part in locator.split("+"))
        stream = self._open(uri)
        stream.seek(start)
        return self._parse(stream.read(size), uri)

    def _open_new(self, uri: str) -> BinaryIO:
        return open_utf8(uri, partial(self._open_bytes, uri))

    def _open_bytes(self, uri: str) -> BinaryIO:
        stream = open_unpacked(uri, partial(self.opener.open, uri))
        # A file in a bucket is an IOBase whose `readline` takes no limit.
        bare = isinstance(stream, io.IOBase) and not isinstance(stream, io.BufferedIOBase)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER)) if bare else stream

    def _open(self, uri: str) -> BinaryIO:
        """Return the file, opened once: most records of a batch are in one file, in sequence."""
        opened: dict[str, BinaryIO] = self.__dict__.setdefault("_opened", {})
        if uri not in opened:
            for other in opened.values():
                other.close()
            opened.clear()
            opened[uri] = self._open_new(uri)
        return opened[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    @abstractmethod
    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        """Parse one record's bytes.

        Raises:
            SampleError: ``bad_record`` or ``encoding_unknown``.
        """


class JsonLines(ByteRangeFile):
    """One JSON object per line."""

    name = "jsonl"
    endings = (".jsonl", ".ndjson")

    def records(self, uri: str) -> Iterator[Record]:
        start = 0
        with self._open_new(uri) as stream:
            for line, size in _lines(stream):
                locator = f"{start}+{size}"
                start += size
                if line is None:
                    message = f"{uri}: a line is longer than {_LONGEST_LINE:,} bytes"
                    yield Record(locator, {}, SampleError("bad_record", message))
                elif line.removeprefix(codecs.BOM_UTF8).strip():
                    try:
                        yield Record(locator, self._parse(line, uri))
                    except SampleError as error:
                        yield Record(locator, {}, error, digest=content_hash(line.rstrip(b"\r\n")))

    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        if len(data) > _MOST_VALUES and sum(map(data.count, (b",", b":", b"[", b"{"))) > _MOST_VALUES:
            raise SampleError("bad_record", f"{uri}: a line has more than {_MOST_VALUES:,} values")
        try:
            fields = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise SampleError("bad_record", f"{uri}: a line is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise SampleError("bad_record", f"{uri}: a line is {type(fields).__name__}, not a JSON object")
        return fields


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
    """Yield each line and its size; None for the content of one that is too long."""
    while line := stream.readline(_LONGEST_LINE):
        part, size = line, len(line)
        while len(part) == _LONGEST_LINE and not part.endswith(b"\n"):
            part = stream.readline(_LONGEST_LINE)
            size += len(part)
        yield (line if part is line else None), size


# What programs write into CSV where a number is NaN or a time NaT; other spellings are words.
_NOT_A_VALUE = frozenset(("NaN", "nan", "NaT"))


class Csv(ByteRangeFile):
    """Rows with a header: comma- or tab-separated, or with semicolons, as the header has them."""

    name = "csv"
    endings = (".csv", ".tsv")

    def records(self, uri: str) -> Iterator[Record]:
        with self._open_new(uri) as stream:
            lines = _CountedLines(stream)
            rows = _csv_rows(lines, uri)
            try:
                header = next(rows, None)
            except csv.Error as error:
                raise UserError(f"{uri} cannot be read as CSV: {error}") from error
            if lines.damaged:
                raise UserError(f"{uri}: the header is not UTF-8")
            if header is None:
                return
            header, delimiter = _split_header(header, uri)
            rows = _csv_rows(lines, uri, delimiter)
            while True:
                start = lines.begin_row()
                try:
                    row = next(rows)
                except StopIteration:
                    return
                except csv.Error as error:
                    locator = f"{start}+{lines.read - start}"
                    cause = SampleError("bad_record", f"{uri}: {error}")
                    yield Record(locator, {}, cause, digest=lines.digest.hexdigest())
                    continue
                if row:
                    locator = f"{start}+{lines.read - start}"
                    try:
                        yield Record(locator, self._fields(header, row, lines.damaged, uri))
                    except SampleError as error:
                        yield Record(locator, {}, error, digest=lines.digest.hexdigest())

    def _fields(self, header: list[str], row: list[str], damaged: bool, uri: str) -> dict[str, Any]:
        if damaged:
            raise SampleError("encoding_unknown", f"{uri}: a row is not UTF-8")
        if len(row) != len(header):
            raise SampleError("bad_record", f"{uri}: a row has {len(row)} fields, the header {len(header)}")
        content = self.mapping.content
        return {
            name: None if value in _NOT_A_VALUE and name != content else value
            for name, value in zip(header, row, strict=True)
        }

    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        header, delimiter = self._header(uri)
        try:
            row = next(_csv_rows(io.StringIO(data.decode("utf-8"), newline=""), uri, delimiter), [])
        except (csv.Error, UnicodeDecodeError) as error:
            raise SampleError("bad_record", f"{uri}: {error}") from None
        return self._fields(header, row, False, uri)

    def _header(self, uri: str) -> tuple[list[str], str]:
        headers: dict[str, tuple[list[str], str]] = self.__dict__.setdefault("_headers", {})
        if uri not in headers:
            with self._open_new(uri) as stream:
                headers[uri] = _split_header(next(_csv_rows(_CountedLines(stream), uri)), uri)
        return headers[uri]


def _csv_rows(lines: Iterable[str], uri: str, delimiter: str = ",") -> Iterator[list[str]]:
    # A setting of the process, since `csv` has none for a single reader.
    csv.field_size_limit(max(csv.field_size_limit(), _LONGEST_FIELD))
    is_tsv = uncompressed_name(uri).lower().endswith(".tsv")
    return csv.reader(lines, delimiter="\t" if is_tsv else delimiter)


def _split_header(header: list[str], uri: str) -> tuple[list[str], str]:
    """Return the columns of a header, and what separates the fields.

    Spreadsheets of countries with a decimal comma write semicolons: a header without a comma and with one is
    theirs.
    """
    if len(header) == 1 and ";" in header[0] and not uncompressed_name(uri).lower().endswith(".tsv"):
        return next(csv.reader(header, delimiter=";")), ";"
    return header, ","


class _CountedLines:
    """Text lines for `csv`, whose rows may have several, and have bounds.

    Attributes:
        read: bytes that were consumed.
        damaged: whether a line of the row was not UTF-8.
        digest: over the lines of the row, without their ends.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.read = stream, 0
        self.begin_row()

    def begin_row(self) -> int:
        """Begin another row, and return its place."""
        self._row, self._fields = self.read, 0
        self.damaged, self.digest = False, hashlib.sha256()
        return self.read

    def __iter__(self) -> _CountedLines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        first = self.read == 0
        self.read += len(line)
        self.digest.update(line.rstrip(b"\r\n"))
        self._fields += max(line.count(b","), line.count(b";")) + line.count(b"\t")
        if self._fields > _MOST_VALUES or self.read - self._row > _LONGEST_LINE:
            raise csv.Error(f"a row has more than {_LONGEST_LINE:,} bytes or {_MOST_VALUES:,} fields")
        try:
            return line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode("utf-8", "replace")
