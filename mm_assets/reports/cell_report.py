"""What a report of a dataset version shows: some samples of each decision, signals, duplicates and figures, in bounded memory."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from mm_assets.cells.plots import threshold_of
from mm_assets.operations.status import cell_status
from mm_embed_kernels import sql
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.kernels.blob_stage import sandboxed
from mm_embed_kernels.modalities import Preview, get
from mm_embed_kernels.modalities.base import PREVIEW_CHARS, PREVIEW_PLACES, PREVIEW_SIDE
from mm_embed_kernels.rules import rule_set
from mm_embed_kernels.sandbox.sandbox import Limits, guarded
from mm_resources.blobs.blob_store import BlobStore
from mm_resources.cell import Cell
from mm_resources.features.feature_tables import FeatureStore
from mm_resources.ledger.costs import CellCost, cell_cost
from mm_resources.ledger.prices import Prices
from mm_resources.monitoring.reviews import Marks, Score
from mm_resources.monitoring.semantic_duplicates import Alike, Pair, alike
from mm_resources.registry.registry import Registry
from mm_resources.storage.store import LARGE_BYTES, Store
from mm_resources.tables.stage_tables import StageTables

# Samples of one decision that are shown, by kind; groups of duplicates, and members of one.
SHOWN = {"kept": 24, "dropped": 12, "flagged": 8}
GROUPS, MEMBERS = 12, 6
MEASURED, BINS = 20_000, 40
# From here on, a threshold and what is measured do not go on one linear axis.
_FAR = 10
_AT_ONCE = 8
_CARD = "{'sample_id': sample_id, 'key': key, 'label': label, 'split': split, 'content_hash': content_hash, 'note': note}"
_COLUMNS = ["sample_id", "key", "label", "split", "content_hash", "kept", "rule", "reason", "rules"]
# Which samples are shown is by chance, but the same ones each time.
_SHEETS = f"""
SELECT mark.kind AS kind, mark.rule AS rule, count(*) AS samples, arg_min({_CARD}, md5(sample_id), {max(SHOWN.values())}) AS shown
FROM (
  SELECT *, mark.note AS note FROM (
    SELECT * EXCLUDE (rules, rule, reason), unnest(list_concat(
      [{{'kind': CASE WHEN kept THEN 'kept' ELSE 'dropped' END, 'rule': coalesce(rule, ''), 'note': coalesce(reason, '')}}],
      [{{'kind': 'flagged', 'rule': r.rule, 'note': coalesce(r.reason, '')}} for r in rules if NOT r.passed AND r.action = 'flag']
    )) AS mark FROM curated
  )
)
GROUP BY 1, 2 ORDER BY array_position(['kept', 'dropped', 'flagged'], kind), samples DESC, rule
"""
_LARGEST = f"""
SELECT duplicate_group, count(*) AS samples FROM curated WHERE duplicate_group IS NOT NULL
GROUP BY 1 HAVING samples > 1 ORDER BY samples DESC, 1 LIMIT {GROUPS}
"""
_MEMBERS = f"""
SELECT duplicate_group, arg_min({_CARD}, CASE WHEN kept THEN '0' ELSE '1' END || md5(sample_id), {MEMBERS}) AS shown
FROM (
  SELECT *, CASE WHEN kept THEN 'kept' ELSE 'dropped by ' || rule END || coalesce('; ' || duplicates[1].kind || ' '
    || round(duplicates[1].score, 3) || coalesce(', ' || duplicates[1].span, ''), '') AS note
  FROM curated SEMI JOIN groups USING (duplicate_group)
) GROUP BY 1
"""
_CHOSEN = f"SELECT {_CARD} AS card FROM (SELECT *, '' AS note FROM curated SEMI JOIN ids USING (sample_id))"
_MEMBER = [
    "sample_id",
    "key",
    "label",
    "split",
    "content_hash",
    "kept",
    "rule",
    "duplicate_group",
    "duplicates",
]


@dataclass(frozen=True)
class Card:
    """One sample. `picture` is a JPEG as a data URI, `wave` a waveform (see `Preview`), `fault` why there is nothing to see."""

    sample_id: str
    key: str
    label: str | None
    split: str
    note: str
    picture: str = ""
    frames: int = 1
    wave: tuple[float, ...] = ()
    text: str = ""
    fault: str = ""


@dataclass(frozen=True)
class Sheet:
    """Some of the samples that were kept, dropped by a rule or flagged by one; or of one group of duplicates."""

    kind: str
    rule: str
    samples: int
    cards: list[Card]


@dataclass(frozen=True)
class Histogram:
    """A measured signal and the threshold that a rule has for it.

    Attributes:
        low, high: ends of the axis; values beyond them count in the outermost bins.
        at: place of the threshold on the axis, 0 to 1.
        log: whether the axis is logarithmic, for signals of another magnitude than their threshold.
        counts: values in each bin.
    """

    rule: str
    action: str
    column: str
    threshold: float
    low: float
    high: float
    at: float
    log: bool
    counts: list[int]


@dataclass(frozen=True)
class CellReport:
    """All that is shown of a cell.

    Attributes:
        groups: the largest groups of duplicates.
        alike: pairs that are close in the vector space and in no group together, found by looking at so many vectors.
        cost: in the currency of the price table.
        scores: against the marks of people.
    """

    modality: str
    counts: dict[str, Any]
    sheets: list[Sheet]
    groups: list[Sheet]
    alike: list[Sheet]
    looked_at: int
    histograms: list[Histogram]
    cost: CellCost
    scores: list[Score]


def cell_report(store: Store, cell: Cell, prices: Prices, limits: Limits = Limits()) -> CellReport:
    """Look at a cell as it is published; before the first publish, as it is curated.

    Raises:
        UserError: when nothing of it is curated yet.
    """
    pin, tables = Registry(store).pin(cell), StageTables(store)

    def read(asset: str, columns: list[str] | None = None) -> pa.RecordBatchReader:
        return tables.read(asset, cell, columns, version=pin.stages[asset]["lance_version"] if pin else None)

    try:
        sheets = sql.fetch(_SHEETS, curated=read("curated_samples", _COLUMNS)).to_pylist()
    except LookupError as error:
        raise UserError(
            f"{error}; run `mm backfill {cell.dataset_version} --modality {cell.modality}`"
        ) from None
    largest = sql.fetch(_LARGEST, curated=read("curated_samples", ["duplicate_group"])).to_pylist()
    members: dict[str, list[dict[str, Any]]] = {}
    if largest:
        found = sql.fetch(
            _MEMBERS, curated=read("curated_samples", _MEMBER), groups=pa.Table.from_pylist(largest)
        ).to_pylist()
        members = {row["duplicate_group"]: row["shown"] for row in found}
    for row in sheets:
        row["shown"] = row["shown"][: SHOWN[row["kind"]]]
    near = (
        alike(FeatureStore(store), pin.primary.table, pin.primary.lance_version, pin.primary.index)
        if pin
        else Alike(0, 0, [])
    )
    pairs = _pairs(
        near.pairs[:GROUPS], read("curated_samples", [name for name in _COLUMNS if name != "rules"])
    )
    shown = [*(row["shown"] for row in sheets), *members.values(), *pairs]
    wanted = [card["content_hash"] for cards in shown for card in cards]
    seen = _previews(store, cell, dict.fromkeys(wanted), limits)

    def cards(rows: list[dict[str, Any]]) -> list[Card]:
        return [
            Card(**seen.get(row.pop("content_hash"), {"fault": "its blob is not in the store"}), **row)
            for row in rows
        ]

    groups = [
        Sheet("duplicates", row["duplicate_group"], row["samples"], cards(members[row["duplicate_group"]]))
        for row in largest
    ]
    return CellReport(
        modality=cell.modality,
        counts=cell_status(store, cell),
        sheets=[Sheet(row["kind"], row["rule"], row["samples"], cards(row["shown"])) for row in sheets],
        groups=groups,
        alike=[
            Sheet("alike", f"{pair.score:.3f}", 2, cards(rows))
            for pair, rows in zip(near.pairs, pairs, strict=False)
        ],
        looked_at=near.looked_at,
        histograms=_histograms(Registry(store), cell, partial(read, "validated_samples")),
        cost=cell_cost(store, cell, prices),
        scores=Marks(store).scores(cell),
    )


def _pairs(found: list[Pair], curated: pa.RecordBatchReader) -> list[list[dict[str, Any]]]:
    """The two samples of each pair, as cards are made of them."""
    ids = pa.table(
        {"sample_id": pa.array([name for pair in found for name in (pair.a, pair.b)], pa.string())}
    )
    rows = sql.fetch(_CHOSEN, curated=curated, ids=ids)["card"].to_pylist() if found else []
    known = {row["sample_id"]: row for row in rows}
    return [
        [{**known[name], "note": span} for name, span in ((pair.a, pair.span_a), (pair.b, pair.span_b))]
        for pair in found
    ]


def _previews(store: Store, cell: Cell, hashes: Iterable[str], limits: Limits) -> dict[str, dict[str, Any]]:
    """The fields of a card that show a blob, by content hash; few blobs lie in memory at once."""
    tables, blobs, modality = StageTables(store), BlobStore(store), get(cell.modality)
    seen: dict[str, dict[str, Any]] = {}
    wanted = list(hashes)
    for start in range(0, len(wanted), _AT_ONCE):
        some = wanted[start : start + _AT_ONCE]
        where = f"content_hash IN ({', '.join(map(sql.literal, some))})"
        places = (
            tables.read("content_blobs", cell, ["content_hash", "path", "offset", "size"], where)
            .read_all()
            .to_pylist()
        )
        loaded = [guarded(_load, (blobs, modality.streams, *place.values())) for place in places]
        outcomes = sandboxed(limits, modality.preview, loaded, [()] * len(loaded))
        seen.update(
            {place["content_hash"]: _shown(outcome) for place, outcome in zip(places, outcomes, strict=True)}
        )
    return seen


def _load(blobs: BlobStore, streams: bool, content_hash: str, path: str, offset: int, size: int) -> Any:
    if size > LARGE_BYTES * 8 and not streams:
        raise SampleError("too_large", f"{size / 1e6:,.0f} MB are too much for a preview")
    return (blobs.media if streams else blobs.read)(content_hash, path, offset, size)


def _shown(outcome: Preview | SampleError) -> dict[str, Any]:
    """A preview as a card holds it; what comes out of the sandbox is held against what it should be."""
    if isinstance(outcome, SampleError):
        return {"fault": f"{outcome.error_class}: {outcome.message}"[:PREVIEW_CHARS]}
    found: dict[str, Any] = {}
    if outcome.text is not None:
        found["text"] = str(outcome.text)[:PREVIEW_CHARS]
    if outcome.wave is not None:
        found["wave"] = tuple(
            float(value)
            for value in np.nan_to_num(np.asarray(outcome.wave, np.float32)[:PREVIEW_PLACES]).clip(0, 1)
        )
    if outcome.picture is not None:
        found |= {"picture": _jpeg(np.asarray(outcome.picture)), "frames": outcome.frames}
    return found


def _jpeg(pixels: np.ndarray[Any, Any]) -> str:
    """Pixels, uint8 [height, width, 3], as a data URI."""
    from PIL import Image

    if pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.size > 3 * 8 * PREVIEW_SIDE**2:
        return ""
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(sink, "JPEG", quality=72)
    return f"data:image/jpeg;base64,{base64.b64encode(sink.getvalue()).decode()}"


def _histograms(registry: Registry, cell: Cell, read: Any) -> list[Histogram]:
    """Of each signal that a rule has one threshold for, over a sample of the cell."""
    rules = rule_set(cell.modality, registry.spec(cell.dataset, cell.version).curation.rules)
    there = set(read(None).schema.names)
    columns = sorted(
        {
            column
            for rule in rules
            for column in rule.columns
            if column not in rule.compared and column in there
        }
    )
    if not columns:
        return []
    sampled = sql.fetch(
        f"SELECT * FROM samples USING SAMPLE reservoir({MEASURED} ROWS) REPEATABLE (0)", samples=read(columns)
    )
    drawn = [found for rule in rules if (found := threshold_of(rule, sampled))]
    return [
        _histogram(rule.name, rule.action, column, threshold, sampled[column])
        for rule, column, threshold in drawn
    ]


def _histogram(rule: str, action: str, column: str, threshold: float, values: pa.ChunkedArray) -> Histogram:
    found = values.drop_null().to_numpy().astype(float)
    found = found[np.isfinite(found)]
    # Few outliers should not squeeze the rest into one bin.
    low, median, high = (
        (float(value) for value in np.quantile(found, [0.005, 0.5, 0.995]))
        if len(found)
        else (threshold,) * 3
    )
    low, high = min(low, threshold), max(high, threshold)
    margin = (high - low) * 0.04 or 1.0
    low, high = low - margin if low < 0 else max(0.0, low - margin), high + margin
    unit, larger = min(threshold, median), max(threshold, median)
    log = low >= 0 and unit > 0 and larger > _FAR * unit

    def axis(value: Any) -> Any:
        return np.log1p(value / unit) if log else value

    ends = (float(axis(low)), float(axis(high)))
    counts, _ = np.histogram(axis(found.clip(low, high)), BINS, ends)
    at = (float(axis(threshold)) - ends[0]) / (ends[1] - ends[0])
    return Histogram(rule, action, column, threshold, low, high, at, log, counts.tolist())
