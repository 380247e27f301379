"""TODO."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from mm_embed_kernels.errors import UserError

PIN_NAME = re.compile(r"^(\d{8})\.json$")


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
    def named(self) -> str:
        """The embedder and its space, for people."""
        return f"{self.embedder} (space {self.space})"


@dataclass(frozen=True)
class Pin:
    """What is published of a cell: the only thing that readers resolve."""

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
            f"{self.dataset}@{self.version} {self.modality} has no embedder {embedder!r}; it has: "
            + ", ".join(table.named for table in self.tables)
        )
