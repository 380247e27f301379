"""Receipts of what was forgotten: what was asked for, what went, and the tombstones that keep it out.

A receipt is written before anything is removed, so that a crash half-way is known and completed by the same command.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from mm_embed_kernels.errors import SampleError, UserError
from mm_resources.storage.store import Store

_FOLDER = "registry/forgotten"


@dataclass
class Receipt:
    """One forgetting; holds ids and hashes, no content.

    Attributes:
        number: names the receipt.
        asked: the content hash or sample id that was given.
        hashes: contents that are refused from now on.
        samples: ids of all samples that had one of them, in any version.
        keys: keys of the compute cache that were made of their texts.
        blobs: places of blobs that were removed.
        rows: table -> rows that its current version lost.
        pins: pins that were written anew.
        done_at: when nothing of it was left (UTC, ISO 8601); "" while it is under way or was broken off.
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
    done_at: str = ""


class Receipts:
    """The receipts of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def all(self) -> list[Receipt]:
        """Every receipt, oldest first."""
        names = [name for name in self.store.names(_FOLDER) if name.endswith(".json")]
        return [Receipt(**json.loads(self.store.read(f"{_FOLDER}/{name}"))) for name in names]

    def write(self, receipt: Receipt) -> None:
        self.store.write(f"{_FOLDER}/{receipt.number}.json", json.dumps(asdict(receipt), indent=1).encode())

    def tombstones(self) -> dict[str, str]:
        """Content hash -> number of the receipt by which it is refused."""
        return {digest: receipt.number for receipt in self.all() for digest in receipt.hashes}

    def require_done(self) -> None:
        """See that no forgetting was broken off: what is published meanwhile could bring back what it removes.

        Raises:
            UserError: with the command that completes it.
        """
        for receipt in self.all():
            if not receipt.done_at:
                raise UserError(
                    f"forgetting {receipt.asked} is not complete (receipt {receipt.number}); run: mm forget {receipt.asked}"
                )

    def naming(self, table: str) -> str:
        """Why a version of a table is gone, in words; "" where nothing was forgotten of it."""
        found = [receipt for receipt in self.all() if table in receipt.rows]
        if not found:
            return ""
        last = found[-1]
        return f"rows of it were forgotten on {last.begun_at[:10]} (receipt {last.number}); make the training set anew"


def refused(digest: str, receipt: str) -> SampleError:
    """The failure of a sample whose content was forgotten."""
    return SampleError(
        "forgotten", f"content {digest[:16]} was forgotten and is not ingested again (receipt {receipt})"
    )
