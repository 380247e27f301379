"""Records: lines or rows of tables, each a sample whose content is in a field, or linked by one.

A kind of table is one module that reads all records in sequence, and one again by its locator. Batches are
fetched in the order of locators (`mm_resources.ingestion.fetch_kernel`), so that a reader mostly goes
forward.
"""

from __future__ import annotations

import base64
import binascii
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, BinaryIO, ClassVar

import pyarrow as pa

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.escapes import escape_surrogates
from mm_embed_kernels.identity import canonical_json, content_hash, digest
from mm_embed_kernels.spec.fetch_policy import FetchPolicy
from mm_embed_kernels.spec.source_spec import RecordMapping, SourceSpec
from mm_embed_kernels.urls import strip_secrets
from mm_resources.objects.compressed_streams import uncompressed_name
from mm_resources.objects.opener import ObjectOpener, open_error
from mm_resources.sources.base import Listed, Source, cast_value, sources, text_of
from mm_resources.sources.globs import local_folder
from mm_resources.sources.keys import Keys
from mm_resources.sources.linked_files import LinkedFiles, reference_key
from mm_resources.sources.walk import walk

# Errors of one file. Those of a network are not: a frozen listing would lack what was out of reach for good.
_FILE_ERRORS = (UserError, SampleError, pa.ArrowException, ValueError, OverflowError, RecursionError)
_URL_SAFE = str.maketrans("-_", "+/", "\r\n")


@dataclass(frozen=True)
class Record:
    """One line or row of a file.

    Attributes:
        locator: its position in the file.
        error: why it cannot be read; then it has no fields.
        lazy: whether its content is left out, because it is large and far away.
        digest: of an unreadable record, over its bytes; "" where these are not at hand.
    """

    locator: str
    fields: dict[str, Any]
    error: SampleError | None = None
    lazy: bool = False
    digest: str = ""


class RecordFile(Source):
    """Base of the kinds of tables: a subclass reads one file format.

    Attributes:
        endings: of the names of its files, without that of a compression.
    """

    endings: ClassVar[tuple[str, ...]] = ()

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        super().__init__(spec, schema)
        self.single_object = spec.record is not None and spec.record.url is not None
        self.opener = ObjectOpener(spec.fetch, local_folder(spec.uri))

    @classmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        return spec.record is not None and uncompressed_name(spec.uri).lower().endswith(cls.endings)

    @property
    def mapping(self) -> RecordMapping:
        """The spec's `record` block.

        Raises:
            UserError: when the spec has none.
        """
        if self.spec.record is None:
            raise UserError(
                f"source {self.spec.name}: format {self.name} needs `record` with at least `text`, `bytes` "
                "or `url`"
            )
        return self.spec.record

    @property
    def flavour(self) -> str:
        if self.spec.record and self.spec.record.url:
            return LinkedFiles.flavour  # the bytes at a URL are the same, whatever table links it
        kind = "bytes:" if self.spec.record and self.spec.record.bytes else ""
        return f"{self.name}:{kind}{self.spec.record.content if self.spec.record else ''}"

    @abstractmethod
    def records(self, uri: str) -> Iterator[Record]:
        """Yield all records of a file.

        Raises:
            OSError, SampleError, UserError: when the file cannot be read, or not to its end.
        """

    @abstractmethod
    def record(self, uri: str, locator: str) -> dict[str, Any]:
        """Return the fields of one record, at least that of its content."""

    def list(self) -> Iterator[Listed]:
        return (
            self.linked_files.list(self._rows()) if self.mapping.url else (item for item, _ in self._rows())
        )

    def _rows(self) -> Iterator[tuple[Listed, Any]]:
        """Yield every record as a sample, with the value of its content field."""
        mapping, keys = self.mapping, Keys()
        unread: list[tuple[Listed, OSError]] = []
        is_read = False
        for file in self._tables():
            if file.error is None and file.locator:
                file.error = SampleError(
                    "bad_name", f"{file.uri}: a file of records needs a name that is UTF-8; rename it"
                )
            if file.error:
                yield file, None
                continue
            if file.uri in self.unread:
                is_read = True
                continue
            try:
                for record in self.records(file.uri):
                    is_read = True
                    item, declared = self._guarded_sample(record)
                    item.uri, item.tag, item.modified_at = file.uri, file.tag, file.modified_at
                    keys.make_unique(item, declared)
                    yield item, record.fields.get(mapping.content)
                is_read = True
            except (PermissionError, FileNotFoundError) as error:
                unread.append((file, error))
            except _FILE_ERRORS as error:
                # Its earlier records stay; the rest of the file is one failed sample, and the other files are
                # read.
                file.error = _file_error(file.uri, error)
                yield file, None
        if unread and not is_read:
            raise unread[0][1]  # of a source that nothing can be read of; listed again when it can be
        for file, cause in unread:
            file.error = open_error(file.uri, cause)
            yield file, None

    def _tables(self) -> Iterator[Listed]:
        """Yield the files or datasets that hold the records."""
        return walk(self.spec.uri, self.opener, self.spec.exclude)

    def containers(self) -> Iterator[tuple[str, str]]:
        if self.mapping.url:
            return super().containers()
        return ((table.uri, table.tag) for table in self._tables() if not (table.error or table.locator))

    @cached_property
    def linked_files(self) -> LinkedFiles:
        """The files that the records link."""
        return LinkedFiles(self.spec, self.opener)

    def objects(self) -> Iterator[tuple[str, str]]:
        if self.mapping.url:
            return super().objects()
        return ((table.uri, table.tag) for table in self._tables() if self._is_listed(table))

    def _is_listed(self, table: Listed) -> bool:
        """Return whether a file occurs in the listing: an empty one has no record that could."""
        if table.error is not None or table.locator:
            return True  # as a failed sample; such a file is not opened
        try:
            return any(True for _ in self.records(table.uri))
        except (*_FILE_ERRORS, PermissionError, FileNotFoundError):
            return True

    def _guarded_sample(self, record: Record) -> tuple[Listed, bool]:
        """Return what `_sample` does; a record that it does not expect fails alone."""
        try:
            return self._sample(record)
        except Exception as error:  # noqa: BLE001 - whatever a stranger's record causes is that record's alone
            cause = SampleError("bad_record", f"the record cannot be read: {type(error).__name__}: {error}")
            return Listed(key=f"record-{record.locator}", uri="", locator=record.locator, error=cause), False

    def _sample(self, record: Record) -> tuple[Listed, bool]:
        """Return the record as a sample, and whether its key is a declared id."""
        mapping, fields, declared = self.mapping, record.fields, False
        item = Listed(key=f"record-{record.locator}", uri="", locator=record.locator, error=record.error)
        if record.error:
            _know_by(item, record.digest)
            return item, declared
        try:
            if mapping.id is not None and (key := text_of(fields.get(mapping.id), mapping.id)) is not None:
                item.key, declared = strip_secrets(key), True
            content = None if record.lazy else content_of(fields, mapping)
            if content is not None and mapping.url is None:
                item.size, item.content_hash = len(content), content_hash(content)
            if content is not None and not declared:
                item.key = reference_key(content.decode()) if mapping.url else item.content_hash
            item.label, item.link, item.group = (
                _text(fields, name) for name in (mapping.label, mapping.link, mapping.group)
            )
            item.columns = {
                name: cast_value(fields[name], kind)
                for name, kind in self.schema.items()
                if name in fields and name != "label"
            }
            item.key.encode("utf-8")
        except UnicodeEncodeError:
            item.error = SampleError("encoding_unknown", "a field of the record holds unpaired surrogates")
        except SampleError as error:
            item.error = error
        if item.error is not None and not item.content_hash and not record.lazy:
            _know_by(item, digest("record", canonical_json(fields)))
        item.key = escape_surrogates(item.key)
        return item, declared

    def tag(self, uri: str, locator: str) -> str | None:  # noqa: ARG002 - the tag is the file's
        return self.opener.tag(uri)

    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        if self.mapping.url:
            return self.linked_files.fetch(uri)
        try:
            fields = self.record(uri, locator)
        except OSError as error:
            raise open_error(uri, error) from error
        content = content_of(fields, self.mapping)
        if content is not None:
            return content
        # Hugging Face's struct without bytes: the file lies beside the table.
        return self.linked_files.fetch(self.linked_files.resolve(fields[self.mapping.content]["path"], uri))


def _know_by(item: Listed, found: str) -> None:
    """Let a refused record be known by a digest instead of its place, which moves with the records before."""
    item.content_hash = found
    if found and item.key == f"record-{item.locator}":
        item.key = f"record-{found[:32]}"


def _file_error(uri: str, error: Exception) -> SampleError:
    if isinstance(error, SampleError):
        return error
    cause = str(error) if isinstance(error, UserError) else f"{uri}: {type(error).__name__}: {error}"
    return SampleError("bad_table", cause)


def content_of(fields: dict[str, Any], mapping: RecordMapping) -> bytes | None:
    """Return a record's content: a text or URL as UTF-8, or bytes; None where it is a file beside the table.

    Raises:
        SampleError: ``missing_field``, ``schema_mismatch`` or ``encoding_unknown``.
    """
    name = mapping.content
    if name not in fields:
        raise SampleError(
            "missing_field", f"the record has no field {name!r}; it has: {', '.join(map(str, fields))}"
        )
    value = fields[name]
    if mapping.bytes is not None:
        return _decode_bytes(value, name)
    if not isinstance(value, str):
        kind = "text" if mapping.url is None else "URL"
        raise SampleError(
            "schema_mismatch", f"the {kind} field {name!r} holds {type(value).__name__}, not text"
        )
    try:
        return value.encode("utf-8")
    except UnicodeEncodeError:
        raise SampleError("encoding_unknown", f"the text field {name!r} holds unpaired surrogates") from None


def _decode_bytes(value: Any, name: str) -> bytes | None:
    """Decode bytes, base64 (plain or URL-safe), or Hugging Face's struct of ``bytes`` and ``path``."""
    if isinstance(value, dict) and ("bytes" in value or "path" in value):
        if value.get("bytes") is None and isinstance(value.get("path"), str):
            return None
        value = value.get("bytes")
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise SampleError(
            "schema_mismatch",
            f"the field {name!r} holds {type(value).__name__}, not bytes, base64 or {{bytes, path}}",
        )
    try:
        return base64.b64decode(value.translate(_URL_SAFE), validate=True)
    except (binascii.Error, ValueError) as error:
        raise SampleError("schema_mismatch", f"the field {name!r} is not base64: {error}") from None


def _text(fields: dict[str, Any], name: str | None) -> str | None:
    """Return a field as text; None where it has no value or is not mapped; raises as `text_of`."""
    text = text_of(fields.get(name), name) if name else None
    (text or "").encode("utf-8")
    return text


def open_records(uri: str, policy: FetchPolicy = FetchPolicy()) -> Iterator[Record]:
    """Yield all records of a table file, in the format of its ending; an unreadable one has its error.

    Raises:
        UserError: for an unknown ending or a file that cannot be opened.
    """
    spec = SourceSpec(name="table", modality="text", uri=uri, record=RecordMapping(text="-"), fetch=policy)
    kinds = [kind for kind in sources().values() if issubclass(kind, RecordFile)]
    for kind in kinds:
        if kind.accepts(spec):
            try:
                yield from kind(spec, {}).records(uri)
            except (OSError, ValueError, SampleError) as error:  # ValueError: no Parquet file
                raise UserError(f"table {uri} cannot be read: {error}") from error
            return
    raise UserError(
        f"table {uri}: the ending is none of {', '.join(ending for kind in kinds for ending in kind.endings)}"
    )
