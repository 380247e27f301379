"""`Catalog`: the parts of one store, each opened once."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any

from mm_resources.blobs.blob_store import BlobStore
from mm_resources.blobs.receipts import Receipts
from mm_resources.cell import Cell
from mm_resources.compute.cache import ComputeCache
from mm_resources.features.feature_tables import FeatureTables
from mm_resources.ledger.cell_snapshot import CellSnapshot
from mm_resources.ledger.ledger import Ledger
from mm_resources.ledger.pick_records import PickRecords
from mm_resources.ledger.review_log import ReviewLog
from mm_resources.registry.registry import Registry
from mm_resources.registry.training_sets import TrainingSetRecords
from mm_resources.settings import Settings, absolute
from mm_resources.storage.secret_table import SecretTable
from mm_resources.storage.store import Store
from mm_resources.tables.failure_events import FailureEvents
from mm_resources.tables.stage_tables import StageTables


class Catalog:
    """The parts of a store, opened at first use. Picklable; each process opens them for itself.

    Code that works on a store takes a catalog, or one part of it, and constructs no part.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None) -> Catalog:
        """Open the catalog of a store's root, by default of ``MM_STORE``."""
        return Catalog(
            Store(absolute(os.fspath(root)) if root is not None else Settings.from_environment().store)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    @cached_property
    def registry(self) -> Registry:
        """Frozen specs, their listings, aliases and pins."""
        return Registry(self.store)

    @cached_property
    def tables(self) -> StageTables:
        """The stages' tables, one for each asset and cell."""
        return StageTables(self.store)

    @cached_property
    def failures(self) -> FailureEvents:
        """Failure events of all stages."""
        return FailureEvents(self.store, self.tables)

    @cached_property
    def ledger(self) -> Ledger:
        """Runs, costs and lineage records."""
        return Ledger(self.store)

    @cached_property
    def reviews(self) -> ReviewLog:
        """People's decisions about samples."""
        return ReviewLog(self.store)

    @cached_property
    def picks(self) -> PickRecords:
        """Samples that were chosen by their vectors."""
        return PickRecords(self.store)

    @cached_property
    def training_sets(self) -> TrainingSetRecords:
        """Manifests of training sets by digest."""
        return TrainingSetRecords(self.store)

    @cached_property
    def blobs(self) -> BlobStore:
        """Content-addressed bytes."""
        return BlobStore(self.store)

    @cached_property
    def receipts(self) -> Receipts:
        """Receipts of what was forgotten."""
        return self.blobs.receipts

    @cached_property
    def secrets(self) -> SecretTable:
        """Secrets of the URLs of sources."""
        return SecretTable(self.store)

    @cached_property
    def cache(self) -> ComputeCache:
        """Results of kernels, by content."""
        return ComputeCache(self.store)

    @cached_property
    def features(self) -> FeatureTables:
        """Feature tables in LanceDB."""
        return FeatureTables(self.store, self.receipts)

    def snapshot(self, cell: Cell) -> CellSnapshot:
        """Read the state of a cell as it is now."""
        return CellSnapshot(self.tables, self.registry, cell)
