"""Plan a backfill: rows to compute and to reuse by kernel, and an estimate of the time."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mm_assets.curation.contamination import connect_comparisons
from mm_assets.curation.parent_vectors import connect_vectors
from mm_embed_kernels import sql
from mm_embed_kernels.curation.decisions import curate
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import Rule, rule_set
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.validation.bounds import (
    Bound,
    reject_before_download,
    rejection_reasons,
    validation_bounds,
)
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import SPAN_KEY, inputs_of
from mm_resources.compute.probe_prefixes import REFUSED_REQUESTS, merge_prefixes
from mm_resources.compute.runner import KernelRunner
from mm_resources.costs.prices import Prices
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, REQUESTS, FetchKernel
from mm_resources.ledger.ledger import Rate
from mm_resources.metering import Usage
from mm_resources.registry.registry import Registry
from mm_resources.resources import EmbedderResource
from mm_resources.storage.spool import TableSpool

_KEPT = pa.schema([("key", pa.string()), ("transcript", pa.string())])

_FETCHED = f"""
SELECT l.* EXCLUDE (content_hash), c.content_hash, c.size AS bytes
FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l
JOIN cached c ON l.fetch_key = c.key
WHERE l.error_class IS NULL AND c.content_hash IS NOT NULL
"""
_CONTENTS = "SELECT content_hash AS key FROM fetched"
_REFUSED = f"WITH requests AS ({_CONTENTS}) {REFUSED_REQUESTS}"
_PROBED = """
SELECT f.* EXCLUDE (size, bytes, fetch_key, flavour, locator, tag, error_class, message, modality),
       f.bytes AS size, p.* EXCLUDE (key, error_class, message)
FROM fetched f JOIN cached p ON f.content_hash = p.key WHERE p.status = 'ok'
"""
# Segments of the kept samples, with their own text or the transcript of the source.
_UNITS = """
SELECT DISTINCT k.key AS content_hash, s.unit.span AS span,
       coalesce(s.unit.text, CASE WHEN s.n = 1 THEN k.transcript END) AS text
FROM kept k JOIN (
  SELECT key, unnest(segments) AS unit, len(segments) AS n FROM cached WHERE status = 'ok'
) s USING (key)
"""
_UNTRANSCRIBED = f"SELECT DISTINCT {SPAN_KEY} AS key FROM units WHERE text IS NULL"
_TRANSCRIBED = f"""
SELECT u.* REPLACE (coalesce(u.text, t.text) AS text) FROM units u LEFT JOIN cached t ON t.key = {SPAN_KEY}
"""


@dataclass(frozen=True)
class KernelPlan:
    """Rows of one kernel that a backfill would compute and reuse, and an estimate of the work."""

    kernel: str
    computed: int
    reused: int
    work: Rate

    @property
    def seconds(self) -> float:
        """Estimated seconds on the clock."""
        return round(self.work.seconds, 1)

    def price(self, prices: Prices) -> float:
        """Return the estimated price, in the currency of the price table."""
        return prices.of(Usage(self.work.cpu_seconds, self.work.gpu_seconds))


class _Planner:
    """Plans of kernels over the requests of one cell, against the compute cache."""

    def __init__(self, catalog: Catalog) -> None:
        self.plans: list[KernelPlan] = []
        self._runner = KernelRunner(catalog.cache, None)
        self._rates = catalog.ledger.rates()

    def cached_results(self, kernel: Kernel) -> pa.RecordBatchReader:
        """Stream the cached results of a kernel."""
        return self._runner.cache.space(kernel).reader()

    def add(
        self, kernel: Kernel, statement: str, unseen: int = 0, **streams: pa.RecordBatchReader | pa.Table
    ) -> int:
        """Plan a kernel for the requests that a statement selects.

        Args:
            unseen: rows that the statement cannot select, since the previous kernel has not computed them;
                one row is planned for each.

        Returns:
            The rows to compute.
        """
        with sql.query(statement, **streams) as requests:
            requested, missing = self._runner.count_missing(kernel, requests)
        computed = missing + unseen
        work = self._rates.get(kernel.fingerprint, Rate.of_kernel(kernel)).times(computed)
        self.plans.append(KernelPlan(kernel.name, computed, requested - missing, work))
        return computed

    def by_kernel(self) -> list[KernelPlan]:
        """Return one plan for each name: whole and cut-off media are probed by two kernels of one name."""
        merged: dict[str, KernelPlan] = {}
        for plan in self.plans:
            other = merged.get(plan.kernel, KernelPlan(plan.kernel, 0, 0, Rate()))
            work = Rate.sum([other.work, plan.work])
            merged[plan.kernel] = KernelPlan(
                plan.kernel, other.computed + plan.computed, other.reused + plan.reused, work
            )
        return list(merged.values())


def plan_cell(catalog: Catalog, cell: Cell, embedder: EmbedderResource) -> list[KernelPlan]:
    """Plan the backfill of one cell.

    A sample that was never probed counts as one segment, which is exact for images.

    Raises:
        UserError: when a source cannot be listed, or the rule `contaminated` compares with a dataset that is
            not validated.
    """
    registry, blobs, planner = catalog.registry, catalog.blobs, _Planner(catalog)
    spec, modality = registry.spec(cell.dataset, cell.version), get(cell.modality)
    fetch = FetchKernel(spec, blobs)
    probe, segment = ProbeKernel(modality, blobs), SegmentKernel(modality, blobs)
    # Before the work below: an embedder that cannot be opened is reported at once.
    embeds = [
        embedder.kernel(blobs, Limits(), made)
        for made in embedder.open_all(spec.embedders.get(cell.modality))
    ]

    bounds = validation_bounds(modality, spec.validation.get(cell.modality, {}))
    listing, flavours = _spool_listing(registry, spec, cell.modality, bounds), fetch.flavours()
    unfetched = planner.add(fetch, REQUESTS, listing=listing.reader(), flavours=flavours)
    fetched = _spool(
        _FETCHED, listing=listing.reader(), flavours=flavours, cached=planner.cached_results(fetch)
    )

    unprobed = planner.add(probe, _CONTENTS, unfetched, fetched=fetched.reader())
    probed = planner.cached_results(probe)
    if spec.on_partial != "reject":
        prefix = ProbeKernel(modality, blobs, on_partial=spec.on_partial)
        unprobed += planner.add(
            prefix, _REFUSED, fetched=fetched.reader(), cached=planner.cached_results(probe)
        )
        probed = merge_prefixes(catalog.cache.space(probe), catalog.cache.space(prefix))

    valid = _valid_samples(_spool(_PROBED, fetched=fetched.reader(), cached=probed), bounds)
    rules = rule_set(cell.modality, spec.curation.rules)
    connect_comparisons(catalog, cell, rules)
    connect_vectors(catalog, cell, rules)
    kept = _kept_contents(valid, rules, spec)

    uncut = planner.add(segment, "SELECT * FROM kept", unprobed, kept=kept.reader())
    units = _spool(_UNITS, kept=kept.reader(), cached=planner.cached_results(segment))
    if name := spec.transcribe.get(cell.modality):
        transcribe = embedder.transcribe_kernel(name, blobs, Limits())
        planner.add(transcribe, _UNTRANSCRIBED, uncut, units=units.reader())
        units = _spool(_TRANSCRIBED, units=units.reader(), cached=planner.cached_results(transcribe))
    for embed in embeds:
        requests = "SELECT {key} AS key FROM units WHERE {readable}".format(**inputs_of(embed.embedder))
        planner.add(embed, requests, uncut, units=units.reader())
    return planner.by_kernel()


def _spool(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> TableSpool:
    """Write the rows of a statement to a file, to be read more than once."""
    with sql.query(statement, **streams) as rows:
        return TableSpool.of(rows)


def _spool_listing(registry: Registry, spec: DatasetSpec, modality: str, bounds: list[Bound]) -> TableSpool:
    """List the sources once, with the bounds on listed columns applied.

    Raises:
        UserError: when a source cannot be listed.
    """
    return TableSpool.of(reject_before_download(registry.listings.preview(spec, modality), bounds))


def _valid_samples(probed: TableSpool, bounds: list[Bound]) -> TableSpool:
    """Select the probed samples that meet the spec's validation bounds."""
    valid = TableSpool(probed.schema)
    for batch in probed.reader():
        table = pa.Table.from_batches([batch])
        valid.add(
            table.filter(
                pa.array([reason is None for reason in rejection_reasons(table, bounds)], pa.bool_())
            )
        )
    return valid


def _kept_contents(valid: TableSpool, rules: list[Rule], spec: DatasetSpec) -> TableSpool:
    """Select the content hashes (``key``) that curation would keep, with their given transcripts."""
    kept = TableSpool(_KEPT)
    for table in curate(valid.reader, rules, spec.name, spec.splits):
        kept.add(
            table.filter(table["kept"])
            .select(["content_hash", "transcript"])
            .rename_columns(_KEPT.names)
            .cast(_KEPT)
        )
    return kept
