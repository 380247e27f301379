"""Drift: how a source differs from what was frozen of it, and what the last look at it found."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_embed_kernels import sql
from mm_embed_kernels.identity import digest
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.ingestion.listings import Listings, batched, cause_of, side_table
from mm_resources.sources import open_source

CHANGES = ("added", "removed", "altered")
# How many of each are named.
NAMED = 3

_OBJECTS = pa.schema([("uri", pa.string()), ("tag", pa.string())])
# Of an object without a tag nobody can say more than that it is there.
_ALTERED = "f.tag <> n.tag AND f.tag <> '' AND n.tag <> ''"
# Two digests over all objects would be the same for another listing once in 2^128.
_COMPARED = f"""
SELECT count(*) FILTER (f.uri IS NULL) AS added, count(*) FILTER (n.uri IS NULL) AS removed, count(*) FILTER ({_ALTERED}) AS altered,
       min(n.uri, {NAMED}) FILTER (f.uri IS NULL) AS added_names, min(f.uri, {NAMED}) FILTER (n.uri IS NULL) AS removed_names,
       min(f.uri, {NAMED}) FILTER ({_ALTERED}) AS altered_names,
       count(n.uri) AS objects, bit_xor(md5_number(n.uri || chr(31) || n.tag))::VARCHAR AS state
FROM (SELECT uri, max(tag) AS tag FROM frozen GROUP BY 1) f FULL JOIN (SELECT uri, max(tag) AS tag FROM now GROUP BY 1) n ON f.uri = n.uri
"""


@dataclass(frozen=True)
class Drift:
    """How a source differs from its frozen listing, in objects (files), as one look found it.

    Attributes:
        added, removed, altered: objects; an altered one has another etag, or size and mtime.
        names: URIs of the first few of each.
        problem: why nobody can tell, or why the source can no longer be listed; "" as a rule.
        state: digest of the source's objects as they were at this look: same objects, same value.
        looked_at: when, in UTC (ISO 8601); "" for a source that is not frozen yet.
        since: the first of the looks, without a break, that found this state.
    """

    source: str
    added: int = 0
    removed: int = 0
    altered: int = 0
    names: dict[str, list[str]] = field(default_factory=dict)
    problem: str = ""
    state: str = ""
    looked_at: str = ""
    since: str = ""

    @property
    def moved_on(self) -> bool:
        return bool(self.added or self.removed or self.altered)

    def settled(self, settle: timedelta) -> bool:
        """Whether looks that far apart found the source in the same state, so that nobody is at work on it."""
        return (
            bool(self.looked_at)
            and datetime.fromisoformat(self.looked_at) - datetime.fromisoformat(self.since) >= settle
        )

    def __str__(self) -> str:
        """One line, or "" where nothing is different."""
        found = ", ".join(
            f"{getattr(self, change):,} {change}{_some(self, change)}"
            for change in CHANGES
            if getattr(self, change)
        )
        told = "; ".join(part for part in (self.problem, found) if part)
        return f"source {self.source}: {told}" if told else ""


def _some(drift: Drift, change: str) -> str:
    """The first names in brackets, without their folders."""
    names = [uri.rstrip("/").rsplit("/", 1)[-1] for uri in drift.names.get(change, [])]
    more = ["..."] if getattr(drift, change) > len(names) else []
    return f" ({', '.join([*names, *more])})" if names else ""


class Drifts:
    """Looks at the sources of frozen versions, and remembers the last look at each."""

    def __init__(self, listings: Listings) -> None:
        self.listings, self.store = listings, listings.store

    def look(self, spec: DatasetSpec, source: SourceSpec) -> Drift:
        """List a source anew and compare: streaming, and as long as listing it takes. A source that is not frozen has no drift."""
        # What has happened to tracks is said of their videos.
        if source.track_of or not self.listings.is_frozen(spec, source):
            return Drift(source.name)
        before, now = self.last(spec, source), datetime.now(UTC).isoformat()
        found = self._compared(spec, source)
        since = before.since if before is not None and before.state == found["state"] else now
        drift = Drift(source.name, **found, looked_at=now, since=since)
        self.store.write(self._name(spec, source), json.dumps(asdict(drift), indent=1).encode())
        return drift

    def last(self, spec: DatasetSpec, source: SourceSpec) -> Drift | None:
        """What the last look found; None where nobody has looked."""
        try:
            return Drift(**json.loads(self.store.read(self._name(spec, source))))
        except FileNotFoundError:
            return None

    @staticmethod
    def _name(spec: DatasetSpec, source: SourceSpec) -> str:
        return f"registry/drift/{spec.name}/{spec.version}/{source.name}.json"

    def _compared(self, spec: DatasetSpec, source: SourceSpec) -> dict[str, Any]:
        causes: list[Exception] = []
        table = self.listings.frozen_side_table(spec, source)

        def objects() -> Iterator[dict[str, str]]:
            try:
                opened = open_source(source, dict(spec.schema_))
                if table:
                    yield from side_table(opened)
                yield from ({"uri": uri, "tag": tag} for uri, tag in opened.objects())
            except Exception as error:  # noqa: BLE001 - whatever keeps a source from being listed is what a person must hear
                causes.append(error)

        def frozen() -> Iterator[pa.RecordBatch]:
            yield from batched(iter(table), _OBJECTS)
            # What its rows were refused for stands in the listing under the side table's name, which is no object of the source.
            for batch in self.listings.frozen(spec, source, ["source_uri", "tag"]):
                objects = batch.rename_columns(_OBJECTS.names)
                yield (
                    objects.filter(pc.not_equal(objects["uri"], source.table.uri))
                    if source.table
                    else objects
                )

        now = pa.RecordBatchReader.from_batches(_OBJECTS, batched(objects(), _OBJECTS))
        row = sql.fetch(
            _COMPARED, frozen=pa.RecordBatchReader.from_batches(_OBJECTS, frozen()), now=now
        ).to_pylist()[0]
        if causes:
            return {"problem": f"cannot be listed any more: {cause_of(causes[0])}", "state": "unlisted"}
        return {
            **{change: row[change] for change in CHANGES},
            "names": {change: row[f"{change}_names"] for change in CHANGES if row[change]},
            "problem": f"lists nothing any more at {source.uri}"
            if row["removed"] and not row["objects"]
            else "",
            "state": digest("state", str(row["objects"]), row["state"] or "")[:16],
        }
