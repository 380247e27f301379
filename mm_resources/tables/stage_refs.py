"""Refs: what readers of a stage resolve; each publish of a stage of a cell is one, numbered from 1.

A ref is created exclusively, as a pin is, and names a version of a table that a tag keeps. All that a run
writes before it is invisible, and may be repeated, raced or left behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any

from mm_resources.cell import Cell
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.record_folder import Listing, list_records
from mm_resources.storage.records import DamagedRecord, parse_record
from mm_resources.storage.store import Store, remove_tree

FOLDER = "registry/refs"
_NAME = re.compile(rf"^{FOLDER}/([^/]+)/([^/]+)/([^/]+)/([^/]+)/(\d{{8}})\.json$")
_TAG = re.compile(r"^(.+)\.ref-(\d+)-v(\d+)$")


@dataclass(frozen=True)
class StageMeta:
    """Metadata of a stage's rows.

    Attributes:
        data_version: content-derived; equal content has an equal version.
        inputs: digest of all inputs (upstream data versions, code, configuration); equal inputs need no new
            work.
        rows: rows of the table.
        row_count: rows that the asset stands for: its table's, unless that is a record of another table.
        failed: failure events that the stage recorded.
        retryable: how many of them are marked retryable.
        failures: Lance version of the failure table that holds them; 0 when there are none.
        environment: digest of what the failures depend on.
        blocked: why later stages may not run, or "" (the stored verdict of the gate).
        work: kernel -> rows that the stage requested from it.
        run_id: Dagster run that wrote it.
        at: ISO time of the write.
        summary: figures for people.
        figures: numbers by their stable names, besides those of `summary` and `checks`.
        checks: outcomes of the stage's checks, replayed while nothing changes.
        plots: names of the pictures that were drawn of it.
        samples: samples that left the stage; None where it was written before they were counted.
        counts_runs: whether the cache counts the runs that see a failure of the machine's; False where it was
            written before, when one run made such a failure permanent.
    """

    data_version: str
    inputs: str
    rows: int
    row_count: int
    failed: int
    retryable: int
    failures: int
    environment: str
    blocked: str
    work: dict[str, int]
    run_id: str
    at: str
    summary: dict[str, Any] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    plots: list[str] = field(default_factory=list)
    samples: int | None = None
    counts_runs: bool = False
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class StageRef:
    """One publish of a stage of a cell.

    Attributes:
        number: its number; 0 for a table of a store without refs, which states itself what is published.
        table: name of the table in the store, which other versions of the dataset may share.
        lance_version: version of the table that holds the rows.
        tag: tag of the table that keeps that version.
        meta: metadata of the rows.
        base: ``TABLE@VERSION`` on which the version was written; "" where it was written whole.
        gone: rows of the base that it does not have.
        added: rows that the base does not have.
        digest: of the rows, over the columns that the contract digests; "" in refs of before.
        code: digest of all that decides about a row besides the rows upstream; "" for a stage whose rows are
            not computed by difference.
        read: upstream asset -> [table, Lance version] that the rows were computed from.
    """

    number: int
    table: str
    lance_version: int
    tag: str
    meta: StageMeta
    base: str = ""
    gone: int = 0
    added: int = 0
    digest: str = ""
    code: str = ""
    read: dict[str, list[Any]] = field(default_factory=dict)

    @property
    def place(self) -> dict[str, Any]:
        """The rows as a pin names them: ref, table and Lance version."""
        return {"ref": self.number, "table": self.table, "lance_version": self.lance_version}


class StageRefs:
    """The refs of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def last(self, asset: str, cell: Cell) -> StageRef | None:
        """Return the last ref of a stage; None without one.

        Raises:
            DamagedRecord: when it cannot be read; an earlier one is not what was published.
        """
        listing, found = self._listing(f"{FOLDER}/{cell.path}")
        numbers = found.get((cell, asset))
        return _read(listing, asset, cell, numbers[-1]) if numbers else None

    def last_ones(self, cell: Cell) -> dict[str, StageRef]:
        """Return the last ref of each stage of a cell, by asset, by one listing.

        Raises:
            DamagedRecord: as `last`.
        """
        listing, found = self._listing(f"{FOLDER}/{cell.path}")
        listing.load([_name(asset, cell, numbers[-1]) for (_, asset), numbers in found.items()])
        return {asset: _read(listing, asset, cell, numbers[-1]) for (_, asset), numbers in found.items()}

    def get(self, asset: str, cell: Cell, number: int) -> StageRef:
        """Return a ref by its number.

        Raises:
            FileNotFoundError: when there is none.
            DamagedRecord: when it cannot be read.
        """
        name = _name(asset, cell, number)
        return _parse(self.store.read(name), name, asset, cell)

    def next_number(self, asset: str, cell: Cell) -> int:
        """The number of the next ref, read before the work; `create` fails when another run took it."""
        _, found = self._listing(f"{FOLDER}/{cell.path}")
        return (found.get((cell, asset)) or [0])[-1] + 1

    def create(self, asset: str, cell: Cell, ref: StageRef) -> None:
        """Publish a stage: one atomic, exclusive creation.

        Raises:
            Fenced: when another run published since `next_number`.
        """
        if not self.store.create(_name(asset, cell, ref.number), _dump(ref)):
            raise Fenced(
                f"{asset} of {cell.partition_key} was published by another run since this one began; nothing "
                "was overwritten; run the same command again"
            )

    def replace(self, asset: str, cell: Cell, ref: StageRef) -> None:
        """Replace a ref in place; used by `mm forget` only."""
        self.store.write(_name(asset, cell, ref.number), _dump(ref))

    def remove(self, asset: str, cell: Cell, number: int) -> None:
        """Remove a ref that is neither the last one nor named by a pin."""
        self.store.remove(_name(asset, cell, number))

    def remove_cell(self, cell: Cell) -> None:
        """Remove all refs of a cell."""
        remove_tree(self.store, f"{FOLDER}/{cell.path}")

    def every(self, fresh: bool = False) -> Iterator[tuple[Cell, str, int, StageRef | DamagedRecord]]:
        """Yield cell, asset, number and ref of all refs, in order, or the error of reading one.

        Args:
            fresh: whether to read each of them itself, in search of damage.
        """
        listing, found = self._listing(FOLDER, fresh)
        listing.load(
            [_name(asset, cell, number) for (cell, asset), numbers in found.items() for number in numbers]
        )
        for (cell, asset), numbers in found.items():
            for number in numbers:
                try:
                    yield cell, asset, number, _read(listing, asset, cell, number)
                except DamagedRecord as error:
                    yield cell, asset, number, error

    def _listing(self, folder: str, fresh: bool = False) -> tuple[Listing, dict[tuple[Cell, str], list[int]]]:
        """Return the records of a folder, and the numbers of each cell's and asset's, ascending."""
        listing = list_records(self.store, folder, fresh)
        found: dict[tuple[Cell, str], list[int]] = {}
        for name in listing.names:
            if match := _NAME.match(name):
                dataset, version, modality, asset, number = match.groups()
                found.setdefault((Cell(dataset, version, modality), asset), []).append(int(number))
        return listing, found


def ref_tag(cell: Cell, number: int, lance_version: int) -> str:
    """Return the tag by which a ref keeps a version of a table.

    It names the Lance version, too: a run that was killed before its ref must not bar the next one.
    """
    return f"{cell.version.replace('..', '-')}.ref-{number}-v{lance_version}"


def parse_ref_tag(tag: str) -> tuple[str, int] | None:
    """Return dataset version and number of a ref's tag; None for any other tag."""
    match = _TAG.match(tag)
    return (match[1], int(match[2])) if match else None


def _name(asset: str, cell: Cell, number: int) -> str:
    return f"{FOLDER}/{cell.path}/{asset}/{number:08d}.json"


def _read(listing: Listing, asset: str, cell: Cell, number: int) -> StageRef:
    name = _name(asset, cell, number)
    listing.load([name])
    return _parse(listing.read(name), name, asset, cell)


# Parsed refs in memory: each is read by every stage behind it.
@lru_cache(4_096)
def _parse(raw: bytes, name: str, asset: str, cell: Cell) -> StageRef:
    remedy = "restore it from a backup, or remove it and compute the stage again: "
    remedy += f"mm backfill {cell.dataset_version} --modality {cell.modality}"
    return parse_record(raw, name, _ref, f"{asset} of {cell.partition_key}", remedy)


def _ref(raw: Mapping[str, Any]) -> StageRef:
    return StageRef(**{**raw, "meta": StageMeta(**raw["meta"])})


def _dump(ref: StageRef) -> bytes:
    return json.dumps(asdict(ref)).encode()
