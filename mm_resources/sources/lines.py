"""Tables of lines: JSON lines and CSV, compressed ones too; a record's locator is its byte range in the unpacked file."""

from __future__ import annotations

import csv
import io
import json
from abc import abstractmethod
from collections.abc import Iterator
from functools import partial
from typing import Any, BinaryIO, cast

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.objects.compressed_streams import unpacked, without_compression
from mm_resources.sources.records import Record, RecordFile

csv.field_size_limit(64 << 20)
# A longer line is no record, but something that would fill the memory.
_LONGEST_LINE = 256 << 20
_BUFFER = 1 << 20


class _Ranges(RecordFile):
    """Formats whose records are byte ranges of the file."""

    def record(self, uri: str, locator: str) -> dict[str, Any]:
        start, size = (int(part) for part in locator.split("+"))
        stream = self._open(uri)
        stream.seek(start)
        return self._parse(stream.read(size), uri)

    def _opened_anew(self, uri: str) -> BinaryIO:
        stream = unpacked(uri, partial(self.opener.open, uri))
        # A file in a bucket is an IOBase whose `readline` takes no limit.
        bare = isinstance(stream, io.IOBase) and not isinstance(stream, io.BufferedIOBase)
        return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER)) if bare else stream

    def _open(self, uri: str) -> BinaryIO:
        """The file, opened once: a batch's records mostly lie in one file, one behind the other."""
        opened: dict[str, BinaryIO] = self.__dict__.setdefault("_opened", {})
        if uri not in opened:
            for other in opened.values():
                other.close()
            opened.clear()
            opened[uri] = self._opened_anew(uri)
        return opened[uri]

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    @abstractmethod
    def _parse(self, data: bytes, uri: str) -> dict[str, Any]:
        """One record's bytes to its fields; raises SampleError."""


class JsonLines(_Ranges):
    """One JSON object a line."""

    name = "jsonl"
    endings = (".jsonl", ".ndjson")

    def records(self, uri: str) -> Iterator[Record]:
        start = 0
        with self._opened_anew(uri) as stream:
            for line, size in _lines(stream):
                locator = f"{start}+{size}"
                start += size
                if line is None:
                    yield Record(
                        locator,
                        {},
                        SampleError("bad_record", f"{uri}: a line is longer than {_LONGEST_LINE:,} bytes"),
                    )
                elif line.strip():
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


def _lines(stream: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
    """Each line and its size; without its content where it is too long to be a record."""
    while line := stream.readline(_LONGEST_LINE):
        part, size = line, len(line)
        while len(part) == _LONGEST_LINE and not part.endswith(b"\n"):
            part = stream.readline(_LONGEST_LINE)
            size += len(part)
        yield (line if part is line else None), size


class Csv(_Ranges):
    """Comma- or tab-separated rows with a header."""

    name = "csv"
    endings = (".csv", ".tsv")

    def records(self, uri: str) -> Iterator[Record]:
        with self._opened_anew(uri) as stream:
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
                    yield Record(
                        f"{start}+{lines.read - start}", {}, SampleError("bad_record", f"{uri}: {error}")
                    )
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
            row = next(
                csv.reader(io.StringIO(data.decode("utf-8"), newline=""), delimiter=self._delimiter(uri)), []
            )
        except (csv.Error, UnicodeDecodeError) as error:
            raise SampleError("bad_record", f"{uri}: {error}") from None
        return self._fields(header, row, False, uri)

    def _headers(self, uri: str) -> list[str]:
        known: dict[str, list[str]] = self.__dict__.setdefault("_known_headers", {})
        if uri not in known:
            with self._opened_anew(uri) as stream:
                known[uri] = next(csv.reader(_CountedLines(stream), delimiter=self._delimiter(uri)))
        return known[uri]

    @staticmethod
    def _delimiter(uri: str) -> str:
        return "\t" if without_compression(uri).lower().endswith(".tsv") else ","


class _CountedLines:
    """Text lines for `csv`, counting the bytes that it has consumed; what is not UTF-8 is marked."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self.read, self.damaged = stream, 0, False

    def __iter__(self) -> _CountedLines:
        return self

    def __next__(self) -> str:
        line = self._stream.readline(_LONGEST_LINE)
        if not line:
            raise StopIteration
        first = self.read == 0
        self.read += len(line)
        try:
            return line.decode("utf-8-sig" if first else "utf-8")
        except UnicodeDecodeError:
            self.damaged = True
            return line.decode("utf-8", "replace")
