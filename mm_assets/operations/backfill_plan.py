"""What a backfill would compute and reuse, and how long that would take, without doing any of it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from mm_assets.assets import raw_assets
from mm_assets.curation.contamination import look_into_others
from mm_embed_kernels import sql
from mm_embed_kernels.curation.decisions import curate
from mm_embed_kernels.kernels.base import Kernel
from mm_embed_kernels.kernels.probe import ProbeKernel
from mm_embed_kernels.kernels.segment import SegmentKernel
from mm_embed_kernels.modalities import get
from mm_embed_kernels.rules import Rule, rule_set
from mm_embed_kernels.sandbox.sandbox import Limits
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.validation.bounds import Bound, at_the_door, judge, validation_bounds
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.compute.cache import KEY, inputs_of
from mm_resources.compute.probe_prefixes import REFUSED, with_prefixes
from mm_resources.compute.runner import KernelRunner
from mm_resources.costs.prices import Prices
from mm_resources.ingestion.fetch_kernel import FETCH_KEY, FetchKernel
from mm_resources.ledger.ledger import Rate
from mm_resources.metering import Usage
from mm_resources.registry.registry import Registry
from mm_resources.resources import EmbedderResource
from mm_resources.storage.spool import TableSpool

_KEPT = pa.schema([("key", pa.string()), ("transcript", pa.string())])


@dataclass(frozen=True)
class Planned:
    """Rows of one kernel that a backfill would compute and reuse, and what the former would take."""

    kernel: str
    computed: int
    reused: int
    work: Rate

    @property
    def seconds(self) -> float:
        return round(self.work.seconds, 1)

    def price(self, prices: Prices) -> float:
        return prices.of(Usage(self.work.cpu_seconds, self.work.gpu_seconds))


_LISTED = f"""
SELECT l.*, c.content_hash, c.size AS bytes FROM (SELECT *, {FETCH_KEY} AS fetch_key FROM listing JOIN flavours USING (source)) l
JOIN cached c ON l.fetch_key = c.key WHERE l.error_class IS NULL AND c.content_hash IS NOT NULL
"""
_CONTENTS = "SELECT content_hash AS key FROM known"
_REFUSED = f"WITH requests AS ({_CONTENTS}) {REFUSED}"
_PROBED = """
SELECT k.* EXCLUDE (size, bytes, fetch_key, flavour, locator, tag, error_class, message, modality), k.bytes AS size,
       p.* EXCLUDE (key, error_class, message)
FROM known k JOIN cached p ON k.content_hash = p.key WHERE p.status = 'ok'
"""
# The segments of the kept samples, with the text that they or their source bring.
_UNITS = """
SELECT DISTINCT k.key AS content_hash, s.unit.span AS span, coalesce(s.unit.text, CASE WHEN s.n = 1 THEN k.transcript END) AS text
FROM kept k JOIN (SELECT key, unnest(segments) AS unit, len(segments) AS n FROM cached WHERE status = 'ok') s USING (key)
"""
_WRITTEN = (
    f"SELECT u.* REPLACE (coalesce(u.text, t.text) AS text) FROM units u LEFT JOIN cached t ON t.key = {KEY}"
)


def plan_cell(catalog: Catalog, cell: Cell, embedder: EmbedderResource) -> list[Planned]:
    """The plan of one cell. What was never read counts as one segment each, which is exact for images.

    Raises:
        UserError: when a source cannot be listed, or what the rule `contaminated` compares with is not there.
    """
    registry, blobs, compute = catalog.registry, catalog.blobs, KernelRunner(catalog.cache, None)
    spec, modality, rates = (
        registry.spec(cell.dataset, cell.version),
        get(cell.modality),
        catalog.ledger.rates(),
    )
    fetch = FetchKernel(spec, blobs)
    probe, segment = ProbeKernel(modality, blobs), SegmentKernel(modality, blobs)
    embeds = [
        embedder.kernel(blobs, Limits(), made)
        for made in embedder.open_all(spec.embedders.get(cell.modality))
    ]
    plans: list[Planned] = []

    def plan(
        kernel: Kernel, statement: str, unknown: int = 0, **streams: pa.RecordBatchReader | pa.Table
    ) -> int:
        """Add what a kernel will do with the requests that `statement` makes; how many rows of it are not known to be cached."""
        with sql.query(statement, **streams) as requests:
            wanted, missing = compute.missing(kernel, requests)
        work = rates.get(kernel.fingerprint, Rate.guess(kernel)).times(missing + unknown)
        plans.append(Planned(kernel.name, missing + unknown, wanted - missing, work))
        return missing + unknown

    def cached(kernel: Kernel) -> pa.RecordBatchReader:
        return compute.cache.space(kernel).reader()

    bounds = validation_bounds(modality, spec.validation.get(cell.modality, {}))
    listing, flavours = _listed(registry, spec, cell.modality, bounds), fetch.flavours()
    unread = plan(fetch, raw_assets.REQUESTS, listing=listing.reader(), flavours=flavours)
    known = _spooled(_LISTED, listing=listing.reader(), flavours=flavours, cached=cached(fetch))
    unprobed = plan(probe, _CONTENTS, unread, known=known.reader())
    probed = cached(probe)
    if spec.on_partial != "reject":
        prefix = ProbeKernel(modality, blobs, on_partial=spec.on_partial)
        unprobed += plan(prefix, _REFUSED, known=known.reader(), cached=cached(probe))
        probed = with_prefixes(compute.cache.space(probe), compute.cache.space(prefix))
    valid = _valid(_spooled(_PROBED, known=known.reader(), cached=probed), bounds)
    rules = rule_set(cell.modality, spec.curation.rules)
    look_into_others(catalog, cell, rules)
    kept = _kept(valid, rules, spec)
    uncut = plan(segment, "SELECT * FROM kept", unprobed, kept=kept.reader())
    units = _spooled(_UNITS, kept=kept.reader(), cached=cached(segment))
    if name := spec.transcribe.get(cell.modality):
        transcribe = embedder.transcribe_kernel(name, blobs, Limits())
        plan(
            transcribe,
            f"SELECT DISTINCT {KEY} AS key FROM units WHERE text IS NULL",
            uncut,
            units=units.reader(),
        )
        units = _spooled(_WRITTEN, units=units.reader(), cached=cached(transcribe))
    for embed in embeds:
        plan(
            embed,
            "SELECT {key} AS key FROM units WHERE {readable}".format(**inputs_of(embed.embedder)),
            uncut,
            units=units.reader(),
        )
    return _by_kernel(plans)


def _by_kernel(plans: list[Planned]) -> list[Planned]:
    """One entry for each kernel: whole media and those that are cut off are probed by two."""
    found: dict[str, Planned] = {}
    for plan in plans:
        other = found.get(plan.kernel, Planned(plan.kernel, 0, 0, Rate()))
        work = Rate.sum([other.work, plan.work])
        found[plan.kernel] = Planned(
            plan.kernel, other.computed + plan.computed, other.reused + plan.reused, work
        )
    return list(found.values())


def _spooled(statement: str, **streams: pa.RecordBatchReader | pa.Table) -> TableSpool:
    with sql.query(statement, **streams) as found:
        return TableSpool.of(found)


def _listed(registry: Registry, spec: DatasetSpec, modality: str, bounds: list[Bound]) -> TableSpool:
    """The listing, made once.

    Raises:
        UserError: when a source cannot be listed.
    """
    return TableSpool.of(at_the_door(registry.listings.preview(spec, modality), bounds))


def _valid(probed: TableSpool, bounds: list[Bound]) -> TableSpool:
    """What the spec's validation rules let through."""
    valid = TableSpool(probed.schema)
    for batch in probed.reader():
        table = pa.Table.from_batches([batch])
        valid.add(table.filter(pa.array([reason is None for reason in judge(table, bounds)], pa.bool_())))
    return valid


def _kept(valid: TableSpool, rules: list[Rule], spec: DatasetSpec) -> TableSpool:
    """Content hashes (``key``) that curation would keep, as far as their probes are known, and their given transcripts."""
    kept = TableSpool(_KEPT)
    for table in curate(valid.reader, rules, spec.name, spec.splits):
        kept.add(
            table.filter(table["kept"])
            .select(["content_hash", "transcript"])
            .rename_columns(_KEPT.names)
            .cast(_KEPT)
        )
    return kept
