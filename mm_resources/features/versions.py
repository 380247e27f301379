"""Versions of feature tables: what differs from a published version is written on top of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.contracts.fields import TIME
from mm_embed_kernels.sql import RowDigest
from mm_resources.features import vector_indexes
from mm_resources.features.feature_tables import Candidate, FeatureTables, digest_of
from mm_resources.features.table_metadata import stored_metadata
from mm_resources.lineages import commits
from mm_resources.lineages.bounds import BOUNDS, Bounds, reason_to_rewrite, tail_of
from mm_resources.lineages.differences import COMPUTED_AT, Comparison, Difference, Numbers, compare
from mm_resources.registry.pins import PinnedTable
from mm_resources.storage import lance_datasets
from mm_resources.storage.row_ids import RowIds, find_rows, read_rows
from mm_resources.storage.table_files import damage_of

if TYPE_CHECKING:
    import lance

_VECTOR = "vector"
# Columns that name the dataset version and the run that made a row: a row that a version shares with its base
# keeps those of the base.
MAKER = ("version", "run_id", "created_at")


class FeatureRows(Protocol):
    """The rows of one embedder of a cell; they are read more than once, each time in the same order."""

    def bare_rows(self) -> Iterator[pa.Table]:
        """Yield all rows without their vectors, with the time when each was computed as `COMPUTED_AT`."""

    def rows(self, numbers: Numbers | None = None) -> Iterator[pa.Table]:
        """Yield rows with their vectors: those with the given numbers, sorted; by default all."""


@dataclass(frozen=True)
class Part:
    """The rows of some samples of a cell, whose other rows are those of a base.

    Attributes:
        table, lance_version: the base.
        digest: of the base's rows.
        rows: the rows of the samples.
        samples: the samples, whose rows of the base go.
    """

    table: str
    lance_version: int
    digest: str
    rows: FeatureRows
    samples: pa.Array

    def is_on(self, pinned: PinnedTable) -> bool:
        """Return whether a published table is the base."""
        return (pinned.table, pinned.lance_version) == (self.table, self.lance_version)


@dataclass(frozen=True)
class VersionWriter:
    """Writes the versions of feature tables; `mm_resources.lineages` states the protocol.

    Attributes:
        features: the feature tables of the store.
        log: takes a line on each decision.
        compared: columns that are compared beside those that are a row by themselves, such as `MAKER`.
        metadata: of the schema of the tables; a base that lacks it gets it with the next rows.
    """

    features: FeatureTables
    log: Callable[[str], None] = lambda _line: None
    bounds: Bounds = BOUNDS
    compared: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def write(
        self,
        name: str,
        contract: Contract,
        rows: FeatureRows,
        bases: Iterable[PinnedTable],
        part: Part | None = None,
    ) -> Candidate:
        """Write a candidate as its difference from the first sound base, or whole into a table of its own.

        The rows and their digest are the same on both ways, whatever the base.

        Args:
            name: table of a candidate that is written whole; no pin may name it.
            bases: published tables of the same embedder, best first.
            part: what differs from one of them, where that is known; the others of its rows are not compared.

        Raises:
            Fenced: when other runs write the same table.
        """
        ordered = sorted(bases, key=part.is_on, reverse=True) if part is not None else bases
        for pinned in ordered:
            base = self._sound_base(pinned, contract)
            if base is not None:
                known = part if part is not None and part.is_on(pinned) else None
                found = self._extend(pinned, base, contract, rows, known)
                return found or self._write_whole(name, contract, rows)
        return self._write_whole(name, contract, rows)

    def _write_whole(self, name: str, contract: Contract, rows: FeatureRows) -> Candidate:
        return self.features.write_candidate(name, contract, rows.rows(), self.metadata)

    def _missing_metadata(self, base: lance.LanceDataset) -> dict[str, str]:
        stored = stored_metadata(base.schema.metadata)
        return {key: value for key, value in self.metadata.items() if stored.get(key) != value}

    def _sound_base(self, pinned: PinnedTable, contract: Contract) -> lance.LanceDataset | None:
        """Open a base; None where its columns differ, or a file of it is missing or damaged."""
        if not self.features.has(pinned.table, pinned.lance_version):
            return None
        base = self.features.dataset(pinned.table, pinned.lance_version)
        if not base.schema.remove_metadata().equals(contract.bare):
            self.log(f"{pinned.table} has other columns")
            return None
        if damaged := damage_of(base)[0]:
            self.log(f"{pinned.table} is no base: {damaged[0].file} is {damaged[0].cause}")
            return None
        return base

    def _extend(
        self,
        pinned: PinnedTable,
        base: lance.LanceDataset,
        contract: Contract,
        rows: FeatureRows,
        part: Part | None,
    ) -> Candidate | None:
        """Write the difference from a base; None where the whole is to be written instead."""
        digest, texts, replaced = digest_of(contract.schema), 0, None
        narrow = _without_vector(contract)
        if part is not None:
            rows, replaced = part.rows, find_rows(base, "sample_id", part.samples)
            digest = RowDigest.resume(part.digest, digest.columns)
            for batch in read_rows(base, replaced, list(digest.columns)):
                digest.remove(pa.Table.from_batches([batch]))

        def narrow_tables() -> Iterator[pa.Table]:
            nonlocal texts
            for table in rows.bare_rows():
                cast = narrow.cast(table.drop([COMPUTED_AT]))
                texts += pc.count(cast["text"]).as_py()
                yield cast.append_column(COMPUTED_AT, table[COMPUTED_AT].cast(TIME))

        columns = [name for name in narrow.schema.names if name not in MAKER or name in self.compared]
        found = compare(
            base,
            narrow_tables(),
            narrow.bare.append(pa.field(COMPUTED_AT, TIME)),
            Comparison(contract.key, tuple(columns), "created_at"),
            digest,
            some=replaced,
        )
        if replaced is not None and not texts:
            texts = _count_other_texts(base, replaced)
        index = vector_indexes.index_for(found.rows)
        reason = self._reason_to_rewrite(pinned, base, found, index, bool(texts))
        if reason:
            self.log(f"written whole, not on top of {pinned.table}: {reason}")
            return None
        version = self._commit(pinned, base, contract, rows, found)
        candidate = Candidate(pinned.table, version, found.rows, index, digest.hexdigest())
        if index != vector_indexes.EXACT:
            recall = self.features.try_recall(pinned.table, version, index)
            if min(recall) < vector_indexes.MIN_RECALL:
                self.log(f"written whole, not on top of {pinned.table}: recall is {min(recall):.3f}")
                return None
        self.log(
            f"{pinned.table}: {len(found.gone):,} rows go and {len(found.new):,} come, of {found.rows:,}"
        )
        return candidate

    def _reason_to_rewrite(
        self, pinned: PinnedTable, base: lance.LanceDataset, found: Difference, index: str, texts: bool
    ) -> str:
        """Return why a version is to be written whole; "" where the difference is enough."""
        if not found.is_sound:
            return "keys repeat"
        # The indexes are those that a whole write would build.
        indexed = {name for each in base.describe_indices() for name in each.field_names}
        if index != pinned.index or (_VECTOR in indexed) != (index != vector_indexes.EXACT):
            return f"{found.rows:,} rows get another index: {index}"
        if ("text" in indexed) != texts:
            return "texts are indexed in one of them alone"
        return reason_to_rewrite(base, found.rows, len(found.gone), len(found.new), self.bounds)

    def _commit(
        self,
        pinned: PinnedTable,
        base: lance.LanceDataset,
        contract: Contract,
        rows: FeatureRows,
        found: Difference,
    ) -> int:
        """Write and commit a difference; return the version, that of the base where nothing differs."""
        uri, coming = self.features.uri(pinned.table), len(found.new)
        if not coming and not len(found.gone):
            return pinned.lance_version
        tail = tail_of(base, coming, self.bounds)
        written = 0

        def new_rows() -> Iterator[pa.Table]:
            nonlocal written
            for table in rows.rows(found.new) if coming else ():
                written += table.num_rows
                yield contract.cast(table)

        added = commits.write_files(
            uri,
            contract.bare,
            chain(commits.moved_rows(base, tail, found.gone), lance_datasets.batches_of(new_rows())),
        )
        if written != coming:
            # Both reads are of one version: only an unordered scan could differ.
            raise RuntimeError(f"two reads of the rows of {pinned.table} differ: {written} for {coming}")
        removed, updated = commits.mark_deleted(base, found.gone, tail)
        version = commits.commit_change(
            uri,
            pinned.lance_version,
            commits.Change(removed, updated, added, self._missing_metadata(base)),
            f"candidate on top of version {pinned.lance_version}",
        )
        counted = int(self.features.dataset(pinned.table, version).count_rows())
        if counted != found.rows:
            raise RuntimeError(f"{pinned.table} at version {version} has {counted} rows, not {found.rows}")
        return version


def _count_other_texts(base: lance.LanceDataset, replaced: RowIds) -> int:
    """Return the number of rows of a base with a text, but for some rows."""
    gone = sum(int(pc.count(batch["text"]).as_py()) for batch in read_rows(base, replaced, ["text"]))
    return int(base.count_rows("text IS NOT NULL")) - gone


def _without_vector(contract: Contract) -> Contract:
    """Return the contract of the rows without their vectors."""
    kept = [item for item in contract.schema if item.name != _VECTOR]
    return replace(contract, schema=pa.schema(kept))
