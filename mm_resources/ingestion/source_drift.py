"""Drift: the difference between a source and its frozen listing, and the result of the last check of it."""

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
from mm_embed_kernels.urls import strip_secrets
from mm_resources.ingestion.listing_rows import bound_tag, listed_uri
from mm_resources.ingestion.listings import Listings, describe_cause, row_batches, side_table_objects
from mm_resources.ingestion.spec_secrets import is_walked_before, open_revealed
from mm_resources.storage.records import DamagedRecord, read_record
from mm_resources.storage.secret_table import SecretTable

CHANGES = ("added", "removed", "altered")
# Objects of each change that are named.
NAMED = 3
_FROZEN = ["source_uri", "tag", "key", "error_class"]
_OBJECTS = pa.schema([("uri", pa.string()), ("tag", pa.string())])
# An object without a tag is only known to exist.
_ALTERED = "f.tag <> n.tag AND f.tag <> '' AND n.tag <> ''"
# `state` is a digest over all objects: that of another listing is the same once in 2^128.
_COMPARISON = f"""
SELECT count(*) FILTER (f.uri IS NULL) AS added,
       count(*) FILTER (n.uri IS NULL) AS removed,
       count(*) FILTER ({_ALTERED}) AS altered,
       min(n.uri, {NAMED}) FILTER (f.uri IS NULL) AS added_names,
       min(f.uri, {NAMED}) FILTER (n.uri IS NULL) AS removed_names,
       min(f.uri, {NAMED}) FILTER ({_ALTERED}) AS altered_names,
       count(n.uri) AS objects,
       bit_xor(md5_number(n.uri || chr(31) || n.tag))::VARCHAR AS state
FROM (SELECT uri, max(tag) AS tag FROM frozen GROUP BY 1) f
FULL JOIN (SELECT uri, max(tag) AS tag FROM now GROUP BY 1) n ON f.uri = n.uri
"""


@dataclass(frozen=True)
class Drift:
    """The difference between a source and its frozen listing, in objects (files), at one check.

    Attributes:
        added, removed, altered: numbers of objects; an altered one has another ETag, or size and mtime.
        names: URIs of the first few of each.
        problem: why the source cannot be listed any more, or lists nothing; "" as a rule.
        state: digest of the source's objects at this check: same objects, same value.
        looked_at: time of the check, in UTC (ISO 8601); "" for a source that is not frozen yet.
        since: time of the first check of the unbroken series with this state.
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
    def has_changed(self) -> bool:
        """True if any object differs."""
        return bool(self.added or self.removed or self.altered)

    def is_settled(self, settle: timedelta) -> bool:
        """Return whether checks this far apart had the same state, so that no upload is under way."""
        if not self.looked_at:
            return False
        return datetime.fromisoformat(self.looked_at) - datetime.fromisoformat(self.since) >= settle

    def __str__(self) -> str:
        """Return one line, or "" where nothing differs."""
        changes = ", ".join(
            f"{getattr(self, change):,} {change}{_first_names(self, change)}"
            for change in CHANGES
            if getattr(self, change)
        )
        parts = "; ".join(part for part in (self.problem, changes) if part)
        return f"source {self.source}: {parts}" if parts else ""


def _are_folders(rows: pa.RecordBatch) -> pa.Array:
    """Return which rows of a frozen listing are folders that no walk enters."""
    linked = pc.fill_null(pc.equal(rows["error_class"], "linked_folder"), False)
    unread = pc.and_(pc.is_valid(rows["error_class"]), pc.ends_with(rows["key"], "/"))
    return pc.or_(linked, unread)


def _strip_uris(objects: pa.RecordBatch) -> pa.RecordBatch:
    """Return the objects of a listing that may have been frozen before URLs were stripped."""
    if not pc.any(pc.match_substring_regex(objects["uri"], r"://.*[?@#;]")).as_py():
        return objects
    uris = [listed_uri(uri) for uri in objects["uri"].to_pylist()]
    return objects.set_column(0, _OBJECTS.field("uri"), pa.array(uris, pa.string()))


def _first_names(drift: Drift, change: str) -> str:
    """Return the first names in brackets, without their folders."""
    names = [uri.rstrip("/").rsplit("/", 1)[-1] for uri in drift.names.get(change, [])]
    more = ["..."] if getattr(drift, change) > len(names) else []
    return f" ({', '.join([*names, *more])})" if names else ""


class SourceDrifts:
    """Checks the sources of frozen versions, and records the last check of each."""

    def __init__(self, listings: Listings) -> None:
        self.listings, self.store = listings, listings.store

    def check(self, spec: DatasetSpec, source: SourceSpec) -> Drift:
        """List a source again, streaming, compare it with its frozen listing, and record the result.

        A source that is not frozen has no drift.
        """
        # Changes of sound tracks are reported of their videos.
        if source.track_of or not self.listings.is_frozen(spec, source):
            return Drift(source.name)
        before, now = self.last_check(spec, source), datetime.now(UTC).isoformat()
        comparison = self._compare(spec, source)
        since = before.since if before is not None and before.state == comparison["state"] else now
        drift = Drift(source.name, **comparison, looked_at=now, since=since)
        self.store.write(self._name(spec, source), json.dumps(asdict(drift), indent=1).encode())
        return drift

    def last_check(self, spec: DatasetSpec, source: SourceSpec) -> Drift | None:
        """Return the result of the last check; None where there was none, or its record is damaged."""
        try:
            return read_record(self.store, self._name(spec, source), lambda raw: Drift(**raw), source.name)
        except (FileNotFoundError, DamagedRecord):
            return None

    @staticmethod
    def _name(spec: DatasetSpec, source: SourceSpec) -> str:
        return f"registry/drift/{spec.name}/{spec.version}/{source.name}.json"

    def _compare(self, spec: DatasetSpec, source: SourceSpec) -> dict[str, Any]:
        causes: list[Exception] = []
        table = self.listings.frozen_side_table(spec, source)

        def objects() -> Iterator[dict[str, str]]:
            try:
                opened = open_revealed(spec, source, SecretTable(self.store))
                if table:
                    yield from side_table_objects(opened)
                yield from ({"uri": listed_uri(uri), "tag": bound_tag(tag)} for uri, tag in opened.objects())
            except Exception as error:  # noqa: BLE001 - any client's error; recorded as the drift's problem
                causes.append(error)

        def frozen_batches() -> Iterator[pa.RecordBatch]:
            yield from row_batches(table, _OBJECTS)
            table_uri = listed_uri(source.table.uri) if source.table else ""
            # Refused rows of a side table are listed under its URI, which is not an object of the source.
            skips = is_walked_before(spec, source)
            for batch in self.listings.frozen_listing(spec, source, _FROZEN):
                # Older versions listed a folder that is not entered in each source.
                found = batch.filter(pc.invert(_are_folders(batch))) if skips else batch
                objects = _strip_uris(found.select(_FROZEN[:2]).rename_columns(_OBJECTS.names))
                yield objects.filter(pc.not_equal(objects["uri"], table_uri)) if source.table else objects

        now = pa.RecordBatchReader.from_batches(_OBJECTS, row_batches(objects(), _OBJECTS))
        row = sql.fetch(
            _COMPARISON, frozen=pa.RecordBatchReader.from_batches(_OBJECTS, frozen_batches()), now=now
        ).to_pylist()[0]
        if causes:
            return {"problem": f"cannot be listed any more: {describe_cause(causes[0])}", "state": "unlisted"}
        return {
            **{change: row[change] for change in CHANGES},
            "names": {change: row[f"{change}_names"] for change in CHANGES if row[change]},
            "problem": f"lists nothing any more at {strip_secrets(source.uri)}"
            if row["removed"] and not row["objects"]
            else "",
            "state": digest("state", str(row["objects"]), row["state"] or "")[:16],
        }
