"""Pins: what is published of a cell, and the only thing that readers resolve."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_resources.cell import Cell
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.record_folder import Listing, list_records
from mm_resources.storage.records import parse_record
from mm_resources.storage.store import Store
from mm_resources.tables.stage_tables import stage_path

_FOLDER = "registry/pins"
_PIN_NAME = re.compile(r"^(\d{8})\.json$")


@dataclass(frozen=True)
class PinnedTable:
    """One feature table at one Lance version, kept by a tag."""

    embedder: str
    settings: dict[str, Any]
    fingerprint: str
    weights_hash: str
    preprocessing: dict[str, Any]
    primary: bool
    table: str
    lance_version: int
    tag: str
    rows: int
    dimension: int
    space: str
    index: str
    digest: str
    recall: float | None
    recall_filtered: float | None = None

    @property
    def name(self) -> str:
        """The embedder and its space, for people."""
        return f"{self.embedder} (space {self.space})"


@dataclass(frozen=True)
class Pin:
    """One publish of a cell: the only thing that readers resolve.

    Its `stages` name, for each stage, data version, run, time and the rows: see `place`.
    """

    number: int
    dataset: str
    version: str
    modality: str
    run_id: str
    published_at: str
    data_version: str
    tables: list[PinnedTable]
    accounting: dict[str, Any]
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    override: str = ""
    # Receipts of what was taken out of it since.
    forgotten: list[str] = field(default_factory=list)

    @property
    def cell(self) -> Cell:
        return Cell(self.dataset, self.version, self.modality)

    @property
    def dataset_version(self) -> str:
        return f"{self.dataset}@{self.version}"

    def place(self, asset: str) -> dict[str, Any]:
        """The rows of a stage as `StageRef.place` names them: ref, table and Lance version."""
        stage = self.stages[asset]
        return {
            "ref": stage.get("ref", 0),
            "table": stage_path(asset, self.cell, stage),
            "lance_version": int(stage["lance_version"]),
        }

    @property
    def primary(self) -> PinnedTable:
        return next(table for table in self.tables if table.primary)

    def table(self, embedder: str | None) -> PinnedTable:
        """The table of an embedder, by default the primary one's.

        Raises:
            UserError: naming the embedders that there are.
        """
        if embedder is None:
            return self.primary
        for table in self.tables:
            if table.embedder == embedder:
                return table
        raise UserError(
            f"{self.dataset_version} {self.modality} has no embedder {embedder!r}; it has: "
            + ", ".join(table.name for table in self.tables)
        )


class Pins:
    """The pins of a store; every publish of a cell is an object of its own, numbered from 1."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, cell: Cell, number: int | None = None) -> Pin | None:
        """The latest pin of a cell, or an earlier one by its number; None when nothing was published."""
        numbers = self.numbers(cell)
        if not numbers:
            return None
        name = self._name(cell, number or numbers[-1])
        return _parse(self.store.read(name), name, cell)

    def latest(self, cells: Sequence[Cell]) -> Iterator[Pin | Exception | None]:
        """Yield the latest pin of each cell, in order, or the error of reading it; None without a publish."""
        listing, numbers = self._listing()
        names = {
            cell: self._name(cell, numbers[folder][-1])
            for cell in cells
            if (folder := self._folder(cell)) in numbers
        }
        listing.load(names.values())
        for cell in cells:
            yield _read(listing, names[cell], cell) if cell in names else None

    def every(
        self, cells: Iterable[Cell], fresh: bool = False
    ) -> Iterator[tuple[Cell, int, Pin | Exception]]:
        """Yield all pins of cells with their numbers, oldest first, or the error of reading one.

        Args:
            fresh: as of `list_records`.
        """
        listing, numbers = self._listing(fresh)
        names = {
            (cell, number): self._name(cell, number)
            for cell in cells
            for number in numbers.get(self._folder(cell), [])
        }
        listing.load(names.values())
        for (cell, number), name in names.items():
            yield cell, number, _read(listing, name, cell)

    def _listing(self, fresh: bool = False) -> tuple[Listing, dict[str, list[int]]]:
        """Return the records of all pins, and the numbers of each cell's, by its folder."""
        listing = list_records(self.store, _FOLDER, fresh)
        numbers: dict[str, list[int]] = {}
        for name in listing.names:
            folder, _, last = name.rpartition("/")
            if match := _PIN_NAME.match(last):
                numbers.setdefault(folder, []).append(int(match[1]))
        return listing, numbers

    def numbers(self, cell: Cell) -> list[int]:
        """The numbers of all publishes of a cell, oldest first."""
        names = self.store.names(self._folder(cell))
        return [int(match[1]) for name in names if (match := _PIN_NAME.match(name))]

    def next_number(self, cell: Cell) -> int:
        """The number of the next pin, read before the work; `publish` fails when another run took it."""
        return (self.numbers(cell) or [0])[-1] + 1

    def publish(self, cell: Cell, pin: Pin) -> None:
        """Move the pin: one atomic, exclusive creation.

        Raises:
            Fenced: when another run published since `next_number`.
        """
        if not self.store.create(self._name(cell, pin.number), _dump(pin)):
            raise Fenced(
                f"{cell.partition_key} was published by another run since this one began; its pin stays; "
                "run the same command again"
            )

    def replace(self, cell: Cell, pin: Pin) -> None:
        """Replace a pin in place; used by `mm forget` only."""
        self.store.write(self._name(cell, pin.number), _dump(pin))

    @staticmethod
    def _folder(cell: Cell) -> str:
        return f"{_FOLDER}/{cell.path}"

    def _name(self, cell: Cell, number: int) -> str:
        return f"{self._folder(cell)}/{number:08d}.json"


def _read(listing: Listing, name: str, cell: Cell) -> Pin | Exception:
    try:
        return _parse(listing.read(name), name, cell)
    except (UserError, OSError) as error:
        return error


# Parsed pins in memory: parsing one takes longer than reading it.
@lru_cache(4_096)
def _parse(raw: bytes, name: str, cell: Cell) -> Pin:
    remedy = "restore it from a backup, or remove it and publish again: "
    remedy += f"mm backfill {cell.dataset_version} --modality {cell.modality}"
    return parse_record(raw, name, _pin, cell.partition_key, remedy)


def pin_tag(version: str, number: int, lance_version: int) -> str:
    """Return the tag by which a pin keeps a version of a feature table, which other versions share.

    It names the Lance version, too: a run that was killed before its pin must not bar the next one.
    """
    return f"{version.replace('..', '-')}.pin-{number}-v{lance_version}"


def _pin(raw: Any) -> Pin:
    return Pin(**{**raw, "tables": [PinnedTable(**table) for table in raw["tables"]]})


def _dump(pin: Pin) -> bytes:
    return json.dumps(asdict(pin), indent=1).encode()
