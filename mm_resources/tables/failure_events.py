"""Failure events: a dataset of their own, one table per cell and stage, replaced with the stage.

Each stage's commit names the version of its failures, so that a run that lost the race leaves no trace in
them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql
from mm_embed_kernels.contracts import FAILURES
from mm_embed_kernels.contracts.pipeline import COMPUTING_STAGES, FAILURE_STAGES
from mm_embed_kernels.error_class_entries import SUSPECTED
from mm_embed_kernels.error_classes import require_declared
from mm_embed_kernels.errors import error_fingerprint, without_classes
from mm_embed_kernels.identity import environment_digest
from mm_resources.cell import Cell
from mm_resources.storage import dataset_versions, lance_datasets
from mm_resources.storage.store import Store
from mm_resources.tables.stage_tables import StageTables, failures_path

# Causes that no computation decides: a row that breaks its contract, a sample that the spec refuses.
DECIDED = ("contract_violation", "rejected_by_rule")

# The causes, the most frequent first, with the first failed sample of each as its example.
_CAUSES = """
SELECT * EXCLUDE (example), unnest(example) FROM (
  SELECT modality, stage, error_class, fingerprint, count(*) AS events, count(DISTINCT sample_id) AS samples,
         bool_or(retryable) AS retryable, max(attempt) AS attempts,
         arg_min({'sample_id': sample_id, 'message': message, 'source_uri': source_uri},
                 coalesce(sample_id, message)) AS example
  FROM failures GROUP BY modality, stage, error_class, fingerprint
) ORDER BY events DESC, modality, stage, fingerprint
"""


def may_be_redriven(stage: str, error_class: str) -> bool:
    """Return whether computing a failure again may make it pass."""
    return stage in COMPUTING_STAGES and error_class not in DECIDED


@dataclass(frozen=True)
class FailureFilter:
    """Chooses failure events; "" is any."""

    stage: str = ""
    error_class: str = ""
    fingerprint: str = ""
    sample_id: str = ""

    @property
    def where(self) -> str | None:
        """The filter as SQL over `FAILURES`; None when it lets all pass."""
        chosen = [f"{name} = {sql.literal(value)}" for name, value in asdict(self).items() if value]
        return " AND ".join(chosen) or None

    def dumps(self) -> str:
        """The filter as the value of a run's tag."""
        return json.dumps({name: value for name, value in asdict(self).items() if value})

    @classmethod
    def loads(cls, text: str) -> FailureFilter:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class FailureCount:
    """Failure events written, the retryable ones, and the Lance version that holds them (0: none)."""

    events: int
    retryable: int
    version: int


class FailureEvents:
    """The failure dataset of a store."""

    def __init__(self, store: Store, tables: StageTables) -> None:
        self.store, self.tables = store, tables

    def _uri(self, stage: str, cell: Cell) -> str:
        return self.store.uri(failures_path(stage, cell))

    def write(
        self,
        stage: str,
        cell: Cell,
        run_id: str,
        events: Iterable[dict[str, Any]],
        kernel: str = "",
        environment: str = "",
    ) -> FailureCount:
        """Write a stage's failures, which count from the moment that the stage's commit names their version.

        Args:
            events: dicts with at least ``error_class`` and ``message``; see `FAILURES`. One that copies a
                stored result (of a cache or a frozen listing) carries ``attempt`` and keeps the class stored
                there.

        Raises:
            ValueError: for a new event whose error class is not declared.
        """
        counts = [0, 0]

        def batches() -> Iterator[pa.RecordBatch]:
            held: list[dict[str, Any]] = []
            for event in events:
                held.append(_event(event, stage, cell, run_id, kernel, environment or environment_digest()))
                counts[0] += 1
                counts[1] += bool(held[-1]["retryable"])
                if len(held) >= lance_datasets.READ_ROWS:
                    yield pa.RecordBatch.from_pylist(held, schema=FAILURES.bare)
                    held = []
            if held:
                yield pa.RecordBatch.from_pylist(held, schema=FAILURES.bare)

        stream = batches()
        first = next(stream, None)
        if first is None:
            return FailureCount(0, 0, 0)
        uri = self._uri(stage, cell)
        read_version = lance_datasets.fence(uri, FAILURES.bare)
        version = lance_datasets.overwrite(
            uri,
            FAILURES.bare,
            itertools.chain([first], stream),
            read_version,
            f"{stage} {cell.partition_key} run {run_id}",
        )
        return FailureCount(counts[0], counts[1], version)

    def tag(self, stage: str, cell: Cell, version: int, tag: str) -> None:
        """Tag a version of a stage's failures, so that upkeep keeps it."""
        dataset_versions.tag(self._uri(stage, cell), version, tag)

    def versions(self, cell: Cell, stages: Iterable[str] = FAILURE_STAGES) -> dict[str, int]:
        """Stage -> Lance version of its failure table, for the stages that have failures."""
        metas = {stage: self.tables.meta(stage, cell) for stage in stages}
        return {stage: meta.failures for stage, meta in metas.items() if meta is not None and meta.failures}

    def read(
        self,
        cell: Cell,
        columns: list[str] | None = None,
        stages: Iterable[str] = FAILURE_STAGES,
        chosen: FailureFilter = FailureFilter(),
        versions: Mapping[str, int] | None = None,
    ) -> pa.RecordBatchReader:
        """The chosen failure events of a cell, streaming.

        Args:
            versions: those of an earlier call of `versions`, whose failures are read.
        """
        schema = (
            FAILURES.bare if columns is None else pa.schema([FAILURES.bare.field(name) for name in columns])
        )

        def stream() -> Iterator[pa.RecordBatch]:
            for stage, version in (self.versions(cell, stages) if versions is None else versions).items():
                dataset = lance_datasets.open_dataset(self._uri(stage, cell), version)
                yield from lance_datasets.reader(dataset, FAILURES.bare, columns, chosen.where)

        return pa.RecordBatchReader.from_batches(schema, stream())

    def read_all(
        self, cells: Iterable[Cell], columns: list[str], chosen: FailureFilter = FailureFilter()
    ) -> pa.RecordBatchReader:
        """The chosen failure events of several cells, streaming."""
        schema = pa.schema([FAILURES.bare.field(name) for name in columns])
        batches = (batch for cell in cells for batch in self.read(cell, columns, chosen=chosen))
        return pa.RecordBatchReader.from_batches(schema, batches)

    def causes(self, cells: Iterable[Cell], chosen: FailureFilter = FailureFilter()) -> pa.Table:
        """The causes of the chosen failures, the most frequent first.

        Returns:
            modality, stage, error_class, fingerprint, events, samples, retryable, attempts (the most of any
            sample), and sample_id, message and source_uri of an example.
        """
        columns = [
            "modality",
            "stage",
            "error_class",
            "fingerprint",
            "sample_id",
            "retryable",
            "attempt",
            "message",
            "source_uri",
        ]
        return sql.fetch(_CAUSES, failures=self.read_all(cells, columns, chosen))

    def by_class(
        self, cell: Cell, stages: Iterable[str] = FAILURE_STAGES, versions: Mapping[str, int] | None = None
    ) -> dict[str, int]:
        """Failed samples (or whole sources) by error class; `versions` as in `read`."""
        found = sql.fetch(
            "SELECT error_class, count(DISTINCT coalesce(sample_id, message)) AS n FROM failures "
            "GROUP BY 1 ORDER BY 2 DESC, 1",
            failures=self.read(cell, ["error_class", "sample_id", "message"], stages, versions=versions),
        )
        return dict(zip(found["error_class"].to_pylist(), found["n"].to_pylist(), strict=True))

    def has_suspected(self, cell: Cell, stage: str) -> bool:
        """Return whether a stage has recorded failures of which the machine may have been the cause."""
        return not SUSPECTED.isdisjoint(self.by_class(cell, [stage]))


def _event(
    event: dict[str, Any], stage: str, cell: Cell, run_id: str, kernel: str, environment: str
) -> dict[str, Any]:
    # An older version, or a plug-in that is not installed, may have declared the class of a stored result.
    if "attempt" not in event:
        require_declared(event["error_class"])
    known: dict[str, Any] = {
        name: event[name]
        for name in ("sample_id", "segment_id", "embedder", "content_hash", "source_uri")
        if name in event
    }
    return {
        **known,
        "dataset": cell.dataset,
        "version": cell.version,
        "modality": cell.modality,
        "stage": stage,
        "error_class": event["error_class"],
        "message": without_classes(event["message"]),
        # Of the message as it came, so that causes keep their names.
        "fingerprint": error_fingerprint(stage, event["error_class"], event["message"]),
        "attempt": event.get("attempt") or 1,
        "retryable": bool(event.get("retryable")),
        "run_id": run_id,
        "kernel_fingerprint": kernel or None,
        "environment": environment,
        "at": datetime.now(UTC),
    }
