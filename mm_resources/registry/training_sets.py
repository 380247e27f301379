"""Records of training sets: their manifests by digest, so that what was trained on them is traced back."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import canonical_json, content_hash
from mm_resources.storage.records import read_record
from mm_resources.storage.store import Store

_FOLDER = "registry/training_sets"
# `RowDigest.hexdigest`, with the number of rows in front; of a mixture, hexadecimal digits alone.
_DIGEST = re.compile(r"[0-9a-f-]+")
# A shorter beginning of a digest may mean several sets.
SHORTEST = 8


class TrainingSetRecords:
    """The manifests of a store, each an object of its own that is created exclusively.

    A digest names rows: sets of the same rows by other pins, filters or classes are records of their own.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def record(self, manifest: dict[str, Any]) -> None:
        """Record a manifest; one that is recorded stays as it is.

        Raises:
            OSError: for a store that this process may only read.
        """
        name = f"{manifest['digest']}.{content_hash(canonical_json(manifest).encode())[:16]}"
        record = {"recorded_at": datetime.now(UTC).isoformat(), "manifest": manifest}
        self.store.create(f"{_FOLDER}/{name}.json", json.dumps(record, indent=1).encode())

    def find(self, digest: str) -> list[dict[str, Any]]:
        """Return the records of a digest, ``recorded_at`` and ``manifest``, the first recorded first.

        Args:
            digest: whole, or its beginning, as trackers cut it.

        Raises:
            UserError: for a text that is no digest, one that no record has, and a beginning of several.
        """
        wanted = digest.strip().lower()
        if len(wanted) < SHORTEST or not _DIGEST.fullmatch(wanted):
            raise UserError(
                f"{digest[:100]!r} is no digest of a training set; "
                f"give at least its first {SHORTEST} characters"
            )
        names = [name for name in self.store.names(_FOLDER) if name.startswith(wanted)]
        found = sorted({name.partition(".")[0] for name in names})
        if not found:
            raise UserError(
                f"no training set with the digest {wanted} is recorded in {self.store.root}; sets are "
                "recorded by TrainingSet.record, log_to_mlflow and log_to_wandb; of others, give the manifest"
            )
        if len(found) > 1:
            raise UserError(
                f"{wanted} is the beginning of several digests: {', '.join(found[:5])}; give more"
            )
        records = [self._read(f"{_FOLDER}/{name}") for name in names]
        return sorted(records, key=lambda record: str(record["recorded_at"]))

    def forget(self, tables: Collection[str]) -> None:
        """Remove filters and names of classes, which may be content of a sample, from manifests of tables.

        Args:
            tables: ``TABLE@LANCE_VERSION``; other manifests stay as they are.
        """
        for name in self.store.names(_FOLDER):
            record = self._read(f"{_FOLDER}/{name}")
            manifest = record["manifest"]
            parts = manifest.get("parts") or [manifest]
            named = {f"{each['table']}@{each['lance_version']}" for part in parts for each in part["tables"]}
            if not named.isdisjoint(tables):
                self.store.write(f"{_FOLDER}/{name}", json.dumps(_without_texts(record), indent=1).encode())

    def _read(self, name: str) -> dict[str, Any]:
        return read_record(
            self.store, name, _parse, "the record of a training set", "restore it from a backup, or remove it"
        )


def _parse(raw: Any) -> dict[str, Any]:
    if not isinstance(raw["recorded_at"], str) or not isinstance(raw["manifest"]["digest"], str):
        raise ValueError("this is no record of a training set")
    return dict(raw)


def _without_texts(record: dict[str, Any]) -> dict[str, Any]:
    manifest = dict(record["manifest"])
    for each in [manifest, *(manifest.get("parts") or [])]:
        each["where"] = None
        each.pop("classes", None)
    return {**record, "manifest": manifest, "is_redacted": True}
