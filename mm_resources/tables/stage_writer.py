"""Versions of stage tables: what differs from a base is written on top of it, or all rows are written.

`mm_resources.lineages` states the protocol; a ref takes the place of the pin.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import pyarrow as pa

from mm_embed_kernels.contracts import Contract
from mm_embed_kernels.sql import RowDigest
from mm_resources.lineages import commits
from mm_resources.lineages.bounds import BOUNDS, Bounds, reason_to_rewrite, tail_of
from mm_resources.lineages.differences import Comparison, Difference, compare, take_numbered
from mm_resources.storage import lance_datasets
from mm_resources.storage.lance_errors import Fenced
from mm_resources.storage.row_ids import find_rows, read_rows
from mm_resources.storage.spool import TableSpool
from mm_resources.storage.store import Store
from mm_resources.storage.table_files import damage_of

if TYPE_CHECKING:
    import lance


@dataclass(frozen=True)
class WrittenRows:
    """The rows of a stage that are committed to a table, and that no ref names yet.

    Attributes:
        table: name of the table in the store.
        lance_version: version of it that holds the rows.
        rows: how many there are.
        digest: over the columns that the contract digests, whatever their order.
        base: ``TABLE@VERSION`` on which they were written; "" where they were written whole.
        gone: rows of the base that are not among them.
        added: rows that the base does not have.
    """

    table: str
    lance_version: int
    rows: int
    digest: str
    base: str = ""
    gone: int = 0
    added: int = 0


@dataclass(frozen=True)
class StageWriter:
    """Writes versions of the tables of one stage.

    Attributes:
        store: the store.
        contract: contract of the rows, which are cast to it.
        message: of the commits.
    """

    store: Store
    contract: Contract
    message: str
    bounds: Bounds = BOUNDS

    def write(
        self, own: str, batches: Iterable[pa.Table], bases: Iterable[tuple[str, int]] = ()
    ) -> WrittenRows:
        """Write rows on top of the first sound base, or whole into a table of the cell's own.

        Rows and digest are the same on both ways, whatever the base. No reader sees them before a ref names
        them.

        Args:
            own: name in the store of the table that is written whole.
            bases: name and version of published tables of the same stage, best first.

        Raises:
            Fenced: when other runs write the same table all the time.
        """
        digest = RowDigest(self.contract.digest, self.contract.stand_ins)
        for name, version in bases:
            base = self.sound_base(name, version)
            if base is not None:
                spool = self._spool(batches)
                found = compare(base, _tables_of(spool), self.contract.bare, self._comparison, digest)
                if self._is_worth_it(base, found):
                    return self._write_on(name, base, spool, found, digest)
                return self._write_whole(own, _tables_of(spool), digest)

        def digest_tables() -> Iterator[pa.Table]:
            for table in map(self.contract.cast, batches):
                digest.update(table)
                yield table

        return self._write_whole(own, digest_tables(), digest)

    def sound_base(self, name: str, version: int) -> lance.LanceDataset | None:
        """Open a base; None where it is gone, its columns differ, or a file of it is missing or damaged."""
        base = lance_datasets.open_dataset(self.store.uri(name), version)
        if base is None or not base.schema.remove_metadata().equals(self.contract.bare):
            return None
        return None if damage_of(base)[0] else base

    def _write_whole(self, name: str, tables: Iterable[pa.Table], digest: RowDigest) -> WrittenRows:
        return self._commit_whole(name, lance_datasets.batches_of(tables), digest)

    def _commit_whole(self, name: str, batches: Iterable[pa.RecordBatch], digest: RowDigest) -> WrittenRows:
        """Write all rows, which `digest` covers once they are consumed."""
        uri, schema = self.store.uri(name), self.contract.bare
        fragments = lance_datasets.write_fragments(uri, schema, batches, mode="overwrite")
        version = commits.commit_whole(uri, schema, fragments, self.message)
        return WrittenRows(name, version, digest.rows, digest.hexdigest())

    def write_changes(
        self,
        on: tuple[str, int, str],
        own: str,
        batches: Iterable[pa.Table],
        owner: str,
        owners: pa.Array,
    ) -> WrittenRows:
        """Write the rows of some owners on top of a base, whose other rows stay; nothing else is compared.

        Rows and digest are those that `write` gives for all rows.

        Args:
            on: name and version of the base, which is sound, and the digest of its rows.
            own: name in the store of the table that is written whole, where that is less work for readers.
            owner: column that names the owner of a row.
            owners: those whose rows `batches` are.
        """
        name, version, digested = on
        base = lance_datasets.open_dataset(self.store.uri(name), version)
        if base is None:
            raise Fenced(f"{name} at version {version} is no longer there; run the same command again")
        digest = RowDigest.resume(digested, self.contract.digest, self.contract.stand_ins)
        replaced = find_rows(base, owner, owners)
        for batch in read_rows(base, replaced, self._digest_columns):
            digest.remove(pa.Table.from_batches([batch]))
        spool = self._spool(batches)
        found = compare(base, _tables_of(spool), self.contract.bare, self._comparison, digest, some=replaced)
        if self._is_worth_it(base, found):
            return self._write_on(name, base, spool, found, digest)
        every = [int(each.fragment_id) for each in base.get_fragments()]
        rows = chain(commits.moved_rows(base, every, replaced), spool.reader())
        return self._commit_whole(own, rows, digest)

    @property
    def _comparison(self) -> Comparison:
        columns = [name for name in self.contract.bare.names if name not in self.contract.makers]
        return Comparison(self.contract.key, tuple(columns))

    @property
    def _digest_columns(self) -> list[str]:
        names = {*self.contract.digest, *(other for _, other in self.contract.stand_ins)}
        return [name for name in self.contract.bare.names if name in names]

    def _spool(self, batches: Iterable[pa.Table]) -> TableSpool:
        """Cast and store rows before they are compared.

        An error of the rows keeps its type, and they are made in this thread.
        """
        spool = TableSpool(self.contract.bare)
        for table in map(self.contract.cast, batches):
            spool.add(table)
        return spool

    def _is_worth_it(self, base: lance.LanceDataset, found: Difference) -> bool:
        """Return whether a difference is written, and not the whole, which may be less work for readers."""
        changed = len(found.gone), len(found.new)
        return found.is_sound and not reason_to_rewrite(base, found.rows, *changed, self.bounds)

    def _write_on(
        self, name: str, base: lance.LanceDataset, spool: TableSpool, found: Difference, digest: RowDigest
    ) -> WrittenRows:
        version = self._commit(name, base, spool, found)
        return WrittenRows(
            name,
            version,
            digest.rows,
            digest.hexdigest(),
            f"{name}@{base.version}",
            len(found.gone),
            len(found.new),
        )

    def _commit(self, name: str, base: lance.LanceDataset, spool: TableSpool, found: Difference) -> int:
        """Commit a difference; return the version, that of the base where nothing differs."""
        uri, coming = self.store.uri(name), len(found.new)
        if not coming and not len(found.gone):
            return int(base.version)
        tail = tail_of(base, coming, self.bounds)
        new = take_numbered(_tables_of(spool), found.new) if coming else iter(())
        added = commits.write_files(
            uri,
            self.contract.bare,
            chain(commits.moved_rows(base, tail, found.gone), lance_datasets.batches_of(new)),
        )
        removed, updated = commits.mark_deleted(base, found.gone, tail)
        change = commits.Change(removed, updated, added)
        version = commits.commit_change(uri, int(base.version), change, self.message, indexed=False)
        committed = lance_datasets.open_dataset(uri, version)
        counted = None if committed is None else int(committed.count_rows())
        if counted != found.rows:
            raise RuntimeError(f"{name} at version {version} has {counted} rows, not {found.rows}")
        return version


def _tables_of(spool: TableSpool) -> Iterator[pa.Table]:
    return (pa.Table.from_batches([batch]) for batch in spool.reader())
