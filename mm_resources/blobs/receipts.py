"""Receipts of forgotten content: the request, what it removed, and the hashes that are refused since.

A receipt is written before anything is removed, so that the same command completes what a crash interrupted.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.storage.records import DamagedRecord, read_record
from mm_resources.storage.store import Store

_FOLDER = "registry/forgotten"
_HASH = re.compile("[0-9a-f]+")


@dataclass
class Receipt:
    """One request to forget content; holds ids and hashes, no content.

    Attributes:
        number: the receipt's own.
        asked: the requested content hash or sample id.
        begun_at: start (UTC, ISO 8601).
        hashes: contents that are refused from then on.
        samples: ids of all samples that had one of them, in any version.
        keys: keys of the compute cache that derive from their texts.
        blobs: number of blob locations that were removed.
        rows: table -> rows removed from its current version.
        pins: pins that were rewritten.
        moved: ``TABLE@VERSION`` -> where the remaining rows are: table and lance_version; of a feature table
            rows, digest and index, too. Names of other tables than these contain their folder.
        done_at: completion (UTC, ISO 8601); "" while under way or after a crash.
    """

    number: str
    asked: str
    begun_at: str
    hashes: list[str] = field(default_factory=list)
    samples: list[str] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)
    blobs: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    pins: list[str] = field(default_factory=list)
    moved: dict[str, dict[str, Any]] = field(default_factory=dict)
    done_at: str = ""


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _parse(record: dict[str, Any]) -> Receipt:
    """Return the receipt of a record; those of older versions have no digest."""
    content = dict(record)
    digest = content.pop("digest", None)
    if digest is not None and digest != _digest(content):
        raise ValueError("the receipt differs from its digest")
    receipt = Receipt(**content)
    if not all(_HASH.fullmatch(each) for each in receipt.hashes):
        raise ValueError("a hash of the receipt is none")
    return receipt


class Receipts:
    """The receipts of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def all(self) -> list[Receipt]:
        """Return every receipt, oldest first."""
        return [self._read(name) for name in self._names()]

    def damage(self) -> Iterator[DamagedRecord]:
        """Yield what is wrong with each receipt that cannot be read."""
        for name in self._names():
            try:
                self._read(name)
            except DamagedRecord as error:
                yield error

    def _names(self) -> list[str]:
        return [f"{_FOLDER}/{name}" for name in self.store.names(_FOLDER) if name.endswith(".json")]

    def _read(self, name: str) -> Receipt:
        remedy = (
            "restore it from a backup, since nothing is ingested while it is unknown what was forgotten; "
            "without one remove the file, clean the sources, and run `mm forget` for its samples again"
        )
        return read_record(self.store, name, _parse, "receipt", remedy)

    def write(self, receipt: Receipt) -> None:
        """Write a receipt, or overwrite it with its progress."""
        content = asdict(receipt)
        record = {**content, "digest": _digest(content)}
        self.store.write(f"{_FOLDER}/{receipt.number}.json", json.dumps(record, indent=1).encode())

    def tombstones(self) -> dict[str, str]:
        """Return the refused content hashes, with the number of the receipt of each."""
        return {digest: receipt.number for receipt in self.all() for digest in receipt.hashes}

    def tables(self) -> set[str]:
        """Return the tables from which rows were removed, and those that hold what remained.

        No new feature table takes such a name: readers keep versions open by it, and would go on with the
        old ones.
        """
        return {
            name
            for receipt in self.all()
            for name in (*receipt.rows, *(str(each["table"]) for each in receipt.moved.values()))
        }

    def require_done(self) -> None:
        """Check that every receipt is completed: a publication in between could bring back removed content.

        Raises:
            UserError: with the command that completes it.
        """
        for receipt in self.all():
            if not receipt.done_at:
                raise UserError(
                    f"forgetting {receipt.asked} is not complete (receipt {receipt.number}); "
                    f"run: mm forget {receipt.asked}"
                )

    def removal_of(self, table: str) -> str:
        """Return why a version of a table is gone, for an error message; "" where no row was removed."""
        receipts = [receipt for receipt in self.all() if table in receipt.rows]
        if not receipts:
            return ""
        last = receipts[-1]
        return (
            f"rows of it were forgotten on {last.begun_at[:10]} (receipt {last.number}); "
            "make the training set again"
        )


def forgotten_error(digest: str, receipt: str) -> SampleError:
    """Return the error of a sample whose content was forgotten."""
    return SampleError(
        "forgotten", f"content {digest[:16]} was forgotten and is not ingested again (receipt {receipt})"
    )
