"""The base class of source kinds, which list samples, streaming, and open them later by locator."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, BinaryIO, ClassVar

from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.plugins import discover, pick
from mm_embed_kernels.spec.model import USER_TYPES
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.times import in_utc

# `cast_value` knows these types.
assert set(USER_TYPES) == {"string", "int", "float", "bool", "timestamp"}
# What NaN and NaT are called in tables of text, where the spec declares a number, bool or time.
_MISSING_WORDS = {"nan", "+nan", "-nan", "nat"}
_WHOLE = re.compile(r"(?<=\d)\.0+$")
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass
class Listed:
    """One listed sample.

    Attributes:
        key: unique inside the source.
        uri: the file or object that holds it.
        locator: place inside that object, opaque to all but the source kind; "" for the whole object.
        tag: changes when the object changes (ETag, or size and mtime); "" where it is unknown.
        size: bytes; None where the listing does not tell.
        modified_at: mtime (UTC); None where the listing does not tell.
        label, link, group, transcript: as the source declares them.
        columns: the user's columns that the spec's schema declares.
        error: set where the listing itself refuses the sample.
        content_hash: sha256 of the content of a sample inside an object, where the listing reads it: then it
            and not its place is what the sample is known by; of a refused record, a digest of the record; ""
            where the listing reads neither.
    """

    key: str
    uri: str
    locator: str = ""
    tag: str = ""
    size: int | None = None
    modified_at: datetime | None = None
    label: str | None = None
    link: str | None = None
    group: str | None = None
    transcript: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    error: SampleError | None = None
    content_hash: str = ""


@dataclass(frozen=True)
class Unmatched:
    """Rows or samples that belong to nothing: how many, and the names of the first."""

    count: int
    names: list[str]


class Source(ABC):
    """One source of one spec.

    A source kind is a subclass in a module of this package or behind an ``mm.sources`` entry point; nothing
    else has to be registered.

    Attributes:
        name: of the kind, as `format` names it in a spec.
        single_object: whether each sample is a whole object, so that a batch may be read concurrently; else
            it is a place inside an object, and a batch is read in order.
        unread: URIs of containers that `list` leaves out, since an earlier listing has their samples.
        peeks: whether the caller of `list` looks at its first sample alone: no content is hashed then, and no
            container or side table read to its end.
    """

    name: ClassVar[str] = ""
    single_object: bool = True
    unread: frozenset[str] = frozenset()
    peeks: bool = False

    def __init__(self, spec: SourceSpec, schema: dict[str, str]) -> None:
        self.spec = spec
        self.schema = schema

    @classmethod
    @abstractmethod
    def accepts(cls, spec: SourceSpec) -> bool:
        """Return whether a source without an explicit `format` is of this kind."""

    @abstractmethod
    def list(self) -> Iterator[Listed]:
        """Yield the samples in a stable order, never holding them all.

        Raises:
            OSError, UserError: when the source as a whole cannot be listed.
        """

    @abstractmethod
    def fetch(self, uri: str, locator: str) -> bytes | BinaryIO:
        """Return the bytes of one sample, or an open stream that the caller reads and closes.

        Raises:
            SampleError: with a cause; `retryable` for errors of the network.
        """

    def tag(self, uri: str, locator: str) -> str | None:  # noqa: ARG002 - for subclasses
        """Return the present `Listed.tag`; None where it is unknown, or the object is gone."""
        return None

    def unmatched(self) -> dict[str, Unmatched]:
        """Return what side table and files lack of each other, once `list` has ended; {} without a table."""
        return {}

    def objects(self) -> Iterator[tuple[str, str]]:
        """Yield (uri, tag) of every present object; a kind may override it by a cheaper way than `list`."""
        return ((item.uri, item.tag) for item in self.list())

    def containers(self) -> Iterator[tuple[str, str]]:
        """Yield (uri, tag) of every present object that holds samples, without opening it.

        A kind yields them if an unchanged one always lists the same samples, and `list` heeds `unread`.
        """
        return iter(())

    @property
    def flavour(self) -> str:
        """The part of the spec that changes the bytes at a locator; part of the fetch cache's key."""
        return self.name


def sources() -> dict[str, type[Source]]:
    """Return all source kinds, by name."""
    return discover("mm_resources.sources", "sources", Source)


def open_source(spec: SourceSpec, schema: dict[str, str]) -> Source:
    """Return the source, of the kind that the spec names or the first that accepts it.

    Raises:
        UserError: when no kind fits.
    """
    kinds = sources()
    if spec.format:
        source: Source = pick(kinds, "source format", spec.format)(spec, schema)
        return source
    for kind in kinds.values():
        if kind.accepts(spec):
            return kind(spec, schema)
    raise UserError(
        f"source {spec.name}: no source kind reads {spec.uri}; set `format` to one of: {', '.join(kinds)}"
    )


def is_missing(value: Any) -> bool:
    """Return whether a field holds no value: None, "", NaN (of any number type) or NaT."""
    if value is None or isinstance(value, (str, bytes, list, tuple, dict)):
        return value is None or value == ""
    try:
        return bool(value != value)
    except ArithmeticError:  # a signaling NaN of `decimal`
        return True


def text_of(value: Any, name: str) -> str | None:
    """Return a label, id, link, group or transcript as text; None where there is no value.

    Raises:
        SampleError: ``schema_mismatch``, for lists, structs, and bytes that are not UTF-8.
    """
    if is_missing(value):
        return None
    if isinstance(value, (list, tuple, dict)):
        raise SampleError(
            "schema_mismatch",
            f"the field {name!r} holds a {'struct' if isinstance(value, dict) else 'list'}, "
            "not a single value; name a field with one value per sample",
        )
    try:
        return value.decode("utf-8") if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise SampleError("schema_mismatch", f"the field {name!r} holds bytes that are not UTF-8") from None


def cast_value(value: Any, kind: str) -> Any:
    """Cast a user column's value to the type that the spec declares; None, "", NaN and NaT become None.

    Lists and structs become JSON text in a column of strings, and fit no other type.

    Raises:
        SampleError: ``schema_mismatch``, when it does not fit.
    """
    if is_missing(value):
        return None
    if kind != "string" and isinstance(value, str) and value.strip().lower() in _MISSING_WORDS:
        return None
    try:
        if kind == "string":
            text = _text(value)
            text.encode("utf-8")
            return text
        if kind == "int":
            # A column of integers with gaps is written as floats, in text as well.
            number = int(_WHOLE.sub("", value) if isinstance(value, str) else value)
            if (number != value and not isinstance(value, str)) or not -(2**63) <= number < 2**63:
                raise ValueError(value)
            return number
        if kind == "float":
            return float(value)
        if kind == "bool":
            return _BOOLEANS[str(value).strip().lower()]
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return in_utc(moment)
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError, ArithmeticError):
        raise SampleError(
            "schema_mismatch", f"{_abbreviate(value)} is not a {kind}, as the spec's schema declares"
        ) from None


def _abbreviate(value: Any) -> str:
    """Return the beginning of a value's form, which may nest too deep or be too long as a whole."""
    if isinstance(value, (list, tuple, dict)):
        return f"a {'struct' if isinstance(value, dict) else 'list'}"
    shown = value[:80] if isinstance(value, (str, bytes)) else value
    return f"{shown!r:.80}"


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple, dict)):
        return json.dumps(_without_nan(value), ensure_ascii=False, default=_json_scalar)
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def _without_nan(value: Any) -> Any:
    """Return a list or struct with null in place of NaN and NaT."""
    if isinstance(value, dict):
        return {str(name): _without_nan(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if value != "" and is_missing(value) else value


def _json_scalar(value: Any) -> str:
    if isinstance(value, (date, time)):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")
