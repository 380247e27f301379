"""Base class of export formats, and the rows that they write."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar

import pyarrow as pa

from mm_embed_kernels.plugins import discover
from mm_resources.storage.store import Store

if TYPE_CHECKING:
    from mm_resources.retrieval.training_set import TrainingSet


@dataclass(frozen=True)
class Medium:
    """The medium of a row: the bytes of its sample, or the part of it that the row is.

    Attributes:
        suffix: of a file's name, such as ``jpg``.
    """

    data: bytes
    suffix: str


@dataclass(frozen=True)
class Rows:
    """Some neighbouring rows of a shard.

    Attributes:
        table: the columns of the set.
        media: the media of the rows, by the column's name, ``media`` or ``MODALITY__media``.
    """

    table: pa.Table
    media: dict[str, list[Medium]]


@dataclass(frozen=True)
class Shard:
    """A shard that is written.

    Attributes:
        name: of its file, below the export's folder.
        split: of its rows; "" where a format does not separate splits.
        rows: number of rows.
        bytes: size of the file.
        sha256: of the file's bytes, hex; "" for a part of a table, whose files bear names of their own.
        notes: what the format needs of it at the end, JSON.
    """

    name: str
    split: str
    rows: int
    bytes: int
    sha256: str
    notes: Any = None


@dataclass(frozen=True)
class Request:
    """One request to export: the rows, and the form in which they are written.

    Attributes:
        training_set: the rows.
        schema: columns of the set, without media.
        media: the media columns; without media, none.
        kinds: modality of each media column.
        whole: whether a medium is that of the whole sample, else of the row's span.
        options: of the format, by name.
    """

    training_set: TrainingSet
    schema: pa.Schema
    media: tuple[str, ...]
    kinds: dict[str, str]
    whole: bool
    options: dict[str, Any]

    @property
    def classes(self) -> list[str]:
        """Names of the classes of the set, by number; empty for a set without."""
        return list(self.training_set.manifest.get("classes") or [])


class Format(ABC):
    """One export format.

    A subclass in a module of this package, or behind an ``mm.exports`` entry point, is complete.

    Attributes:
        name: as `mm export --format` has it.
        suffix: of the files of its shards.
        packages: names in pip of the libraries that write it.
        by_split: whether each shard has the rows of one split.
        options: names of the options that it takes.
    """

    name: ClassVar[str] = ""
    suffix: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()
    by_split: ClassVar[bool] = False
    options: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def write(self, rows: Iterable[Rows], sink: BinaryIO, request: Request) -> Any:
        """Write one shard; the same rows give the same bytes. Return its `Shard.notes`."""

    def write_shard(self, rows: Iterable[Rows], name: str, folder: Store, request: Request) -> Any:  # noqa: ARG002
        """Write one shard as a part of a table, not as a file; None where a format has no table."""
        return None

    def finish(self, request: Request, shards: list[Shard], folder: Store) -> None:  # noqa: ARG002
        """Write what describes the shards; by default nothing."""
        return


def formats() -> dict[str, Format]:
    """All export formats by name."""
    return {name: item() for name, item in discover("mm_resources.exports", "exports", Format).items()}


def class_numbers(request: Request, labels: Iterable[str | None]) -> list[int | None]:
    """Return the number of the class of each label; None for a label that is no class of the set."""
    numbers = {name: number for number, name in enumerate(request.classes)}
    return [numbers.get(label) if label is not None else None for label in labels]


def label_columns(names: Iterable[str]) -> list[str]:
    """Return the columns of labels."""
    return [name for name in names if name == "label" or name.endswith("__label")]
