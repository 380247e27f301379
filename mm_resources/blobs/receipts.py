"""Receipts of forgotten content: the request, what it removed, and the hashes that are refused since.

A receipt is written before anything is removed, so that the same command completes what a crash interrupted.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.storage.records import read_record
from mm_resources.storage.store import Store

_FOLDER = "registry/forgotten"


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
        moved: ``TABLE@VERSION`` of a feature table -> where its remaining rows are: table, lance_version,
            rows, digest, index.
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


class Receipts:
    """The receipts of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def all(self) -> list[Receipt]:
        """Return every receipt, oldest first."""
        names = [name for name in self.store.names(_FOLDER) if name.endswith(".json")]
        remedy = "restore it from a backup, or run `mm forget` for its samples again"
        return [
            read_record(self.store, f"{_FOLDER}/{name}", lambda raw: Receipt(**raw), "receipt", remedy)
            for name in names
        ]

    def write(self, receipt: Receipt) -> None:
        """Write a receipt, or overwrite it with its progress."""
        self.store.write(f"{_FOLDER}/{receipt.number}.json", json.dumps(asdict(receipt), indent=1).encode())

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
