"""LanceDB storage: one indexed candidate per embedder, on top of a published version where that is less."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cached_vectors import open_all_vectors, open_vectors
from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun, embedder_inputs, embedder_rules
from mm_assets.cells.checks import completeness_check
from mm_assets.cells.row_inputs import USER_COLUMNS, RowInputs, columns_of
from mm_assets.cells.stage_output import StageOutput
from mm_embed_kernels import contracts, sql
from mm_embed_kernels.contracts import FEATURE_TABLE, FEATURES, feature_contract
from mm_embed_kernels.contracts.fields import current_times
from mm_embed_kernels.embedders import Embedder
from mm_embed_kernels.sql import append_columns, number_rows
from mm_resources.compute.cache import CachedVectors
from mm_resources.features.bases import bases_of, free_table_name
from mm_resources.features.table_metadata import metadata_of
from mm_resources.features.versions import Part, VersionWriter
from mm_resources.lineages.differences import COMPUTED_AT, Numbers, take_numbered

# The row of each vector in the cache, and the user's columns of the sample. The feature rows themselves are
# wide and already in the order of their vectors: they are read beside this result, not sorted again.
_COLUMNS = """
SELECT n.n, n.feature_id AS same, v._rowid AS row_id, v.at AS computed_at{user}
FROM features n LEFT JOIN vectors v ON n.cache_key = v.key{listing} WHERE n.embedder = {embedder} ORDER BY n.n
"""
_LISTING = " LEFT JOIN listing l ON n.sample_id = l.sample_id"


def _is_still_valid(run: CellRun) -> bool:
    """Check that the last run's candidates still exist: upkeep removes those without a pin."""
    entries = run.read("feature_table", ["table", "lance_version"]).read_all().to_pylist()
    return all(run.catalog.features.has(entry["table"], entry["lance_version"]) for entry in entries)


@cell_asset(
    group="4_serve",
    deps=["dataset_registry", "normalized_features"],
    kinds=["lancedb"],
    code_version="2",
    checks=[("rows_complete", True)],
    requires_models=True,
    extra_inputs=embedder_inputs,
    is_still_valid=_is_still_valid,
    shown_contract=FEATURES,
    row_inputs=RowInputs(
        {
            "normalized_features": columns_of("normalized_features"),
            "dataset_registry": ("sample_id", USER_COLUMNS),
        },
        lambda run: {**embedder_rules(run), "user": [str(item) for item in run.spec.user_fields]},
    ),
)
def feature_table(run: CellRun) -> StageOutput:
    """One indexed candidate LanceDB table per embedder: vectors, labels, splits, decisions and lineage.

    What differs from the base is written, as another version of the base's table. Readers see a candidate
    only after `feature_views` has tested and pinned it.
    """
    base = _base_entries(run)
    entries = [_write(run, embedder, base.get(embedder.name)) for embedder in run.embedders]
    written = sum(entry["rows"] for entry in entries)
    return StageOutput(
        run.write([FEATURE_TABLE.rows(entries)]),
        {entry["table"]: f"{entry['rows']:,} rows, {entry['index']}, {entry['space']}" for entry in entries},
        [
            completeness_check(
                "rows_complete",
                run.count_rows("normalized_features"),
                written,
                "feature rows are in the tables",
            )
        ],
        row_count=written,
    )


def _base_entries(run: CellRun) -> dict[str, dict[str, Any]]:
    """Return the candidates of the base that the run's rows differ from in few samples, by embedder."""
    if run.increment is None:
        return {}
    rows = run.catalog.tables.read(run.asset, run.cell, at=run.increment.base.place).read_all()
    return {entry["embedder"]: entry for entry in rows.to_pylist()}


def _write(run: CellRun, embedder: Embedder, base: dict[str, Any] | None) -> dict[str, Any]:
    """Write and index one embedder's candidate; return its row of the stage.

    Args:
        base: the candidate of `CellRun.increment`.
    """
    registry, features = run.catalog.registry, run.catalog.features
    part = None
    if base is not None and run.increment is not None:
        some = _CellRows(run, embedder, some=True)
        part = Part(base["table"], base["lance_version"], base["digest"], some, run.increment.owners)
    candidate = VersionWriter(features, run.context.log.info, metadata=metadata_of(embedder)).write(
        free_table_name(registry, features, run.cell, embedder.name),
        feature_contract(embedder.dimension, run.spec.user_fields),
        _CellRows(run, embedder),
        bases_of(registry, run.cell, run.parent_cell, embedder),
        part,
    )
    return {
        "embedder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "primary": embedder is run.embedders[0],
        "table": candidate.table,
        "lance_version": candidate.lance_version,
        "rows": candidate.rows,
        "dimension": embedder.dimension,
        "space": embedder.space,
        "index": candidate.index,
        "digest": candidate.digest,
    }


@dataclass(frozen=True)
class _CellRows:
    """One embedder's feature rows with the user's columns; rows without a cached vector are left out.

    Attributes:
        some: whether they are those of the samples that `CellRun.increment` computes again.
    """

    run: CellRun
    embedder: Embedder
    some: bool = False

    @cached_property
    def vectors(self) -> CachedVectors:
        """The cached vectors, looked for when the first rows are read."""
        return (open_vectors if self.some else open_all_vectors)(self.run, self.embedder)

    def bare_rows(self) -> Iterator[pa.Table]:
        """Yield all rows without their vectors, with the times when these were computed."""
        for table in self._scan():
            yield table.drop(["row_id"])

    def rows(self, numbers: Numbers | None = None) -> Iterator[pa.Table]:
        """Yield rows with their vectors: those with the given numbers, sorted; by default all."""
        every = (table.drop([COMPUTED_AT]) for table in self._scan())
        return self.vectors.attach(take_numbered(every, numbers), self.embedder.dimension)

    def _scan(self) -> Iterator[pa.Table]:
        """Yield the rows, with the row and time of each vector in the cache, always in the same order."""
        run, read = self.run, self.run.read if self.some else self.run.read_all
        user = [item.name for item in run.spec.user_fields]
        streams = {
            "features": number_rows(partial(read, "normalized_features"))(
                ["feature_id", "sample_id", "cache_key", "embedder"]
            ),
            "vectors": self.vectors.row_ids("at"),
            **({"listing": read("dataset_registry", ["sample_id", *user])} if user else {}),
        }
        statement = _COLUMNS.format(
            user="".join(f', l."{name}"' for name in user),
            listing=_LISTING if user else "",
            embedder=sql.literal(self.embedder.name),
        )
        every = contracts.NORMALIZED_FEATURES.schema.names
        tables = (pa.Table.from_batches([batch]) for batch in read("normalized_features", every))
        own = (table.filter(pc.equal(table["embedder"], self.embedder.name)) for table in tables)
        with sql.query(statement, **streams) as more:
            for table in append_columns(own, more):
                if not table["same"].equals(table["feature_id"]):
                    # Both reads are of one version: only an unordered scan could differ.
                    raise RuntimeError(
                        f"two scans of normalized_features of {run.cell.partition_key} differ in order"
                    )
                yield self._name_maker(
                    table.filter(table["row_id"].is_valid()).drop(["cache_key", "n", "same"])
                )

    def _name_maker(self, table: pa.Table) -> pa.Table:
        """Name this run as the maker; rows that the base has, too, keep their own."""
        makers = {
            "version": pa.repeat(self.run.cell.version, table.num_rows),
            "run_id": pa.repeat(self.run.run_id, table.num_rows),
            "created_at": current_times(table.num_rows),
        }
        for name, values in makers.items():
            table = table.set_column(table.column_names.index(name), name, values)
        return table
