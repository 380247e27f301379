"""The folder of an export: where it is written until it is complete, and what of it is already there."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mm_embed_kernels.errors import UserError
from mm_resources.exports.base import Shard
from mm_resources.settings import absolute
from mm_resources.storage.filesystems import is_local
from mm_resources.storage.store import Store, remove_tree

MANIFEST, EXPORT, SAMPLES = "_manifest.json", "_export.json", "_samples.parquet"
# Of an export under way: what it is of, and the shards that are complete.
_PLAN, _DONE = "_plan.json", "_done"


class ExportFolder:
    """A folder, local or behind a URL, that an export fills.

    A local one appears under its name when it is complete; until then its files lie in ``.NAME.part`` beside
    it. A bucket cannot rename: there ``_manifest.json`` comes last, and without it the export is not
    complete.

    Raises:
        UserError: for a folder that exists, one of another export, or a URL that cannot be opened.
    """

    def __init__(self, target: str, plan: dict[str, Any]) -> None:
        self.target = absolute(target)
        if is_local(self.target):
            self._final: Path | None = Path(self.target.removeprefix("file://"))
            self._part = self._final.with_name(f".{self._final.name}.part")
        else:
            self._final = None
        self.store = Store(str(self._part) if self._final else self.target.rstrip("/"))
        self._check(plan)

    def _check(self, plan: dict[str, Any]) -> None:
        try:
            found = {entry.name.strip("/") for entry in self.store.entries("")}
        except UserError as error:
            raise UserError(str(error).replace("MM_STORE ", "", 1)) from None
        is_complete = self._final.exists() if self._final else MANIFEST in found
        if is_complete:
            raise UserError(f"{self.target} exists; an export makes a new folder")
        if not found:
            self.store.write(_PLAN, json.dumps(plan, indent=1, sort_keys=True).encode())
        elif _PLAN not in found:
            raise UserError(f"{self.store.root} is not empty and has no export under way; give a new folder")
        elif json.loads(self.store.read(_PLAN)) != plan:
            raise UserError(
                f"{self.store.root} has another export, which was broken off; remove it, or repeat that one"
            )

    def done(self) -> dict[str, Shard]:
        """Return the shards that are complete, by name."""
        names = [name for name in self.store.names(_DONE) if name.endswith(".json")]
        shards = [Shard(**json.loads(self.store.read(f"{_DONE}/{name}"))) for name in names]
        return {shard.name: shard for shard in shards}

    def record(self, shard: Shard) -> None:
        """Record that a shard is complete."""
        self.store.write(f"{_DONE}/{quote(shard.name, safe='')}.json", json.dumps(asdict(shard)).encode())

    def complete(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, and let the folder appear under its name; then remove what made it resumable.

        In this order the same call completes an export that was broken off anywhere.
        """
        self.store.write(MANIFEST, json.dumps(manifest, indent=1).encode())
        store = self.store
        if self._final:
            os.replace(self._part, self._final)
            store = Store(str(self._final))
        remove_tree(store, _DONE)
        store.remove(_PLAN)


def read_manifest(place: str) -> dict[str, Any]:
    """Return a manifest: of an export, or one that a tracker has stored.

    Args:
        place: folder or URL of an export, or of the file of a manifest.

    Raises:
        UserError: where there is none.
    """
    is_file = place.endswith(".json")
    folder, _, name = place.rpartition("/") if is_file else (place, "", MANIFEST)
    try:
        raw = Store(absolute(folder or ".").removeprefix("file://")).read(name)
        manifest: dict[str, Any] = json.loads(raw)
    except FileNotFoundError:
        missing = "is no file" if is_file else f"has no {MANIFEST}"
        raise UserError(f"{place} {missing}; give a digest, an export, or the file of a manifest") from None
    except ValueError as error:
        raise UserError(f"{place} is no manifest of a training set: {error}") from None
    return manifest
