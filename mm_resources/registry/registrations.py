"""Registered versions: their frozen specs, one record for each version."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, restore_spec
from mm_embed_kernels.times import in_utc
from mm_resources.registry.spec_check import UnknownVersion
from mm_resources.storage.layout import check_layout
from mm_resources.storage.record_folder import list_records
from mm_resources.storage.store import Store

_FOLDER = "registry/datasets"
# Parsed specs in memory: parsing one takes longer than reading it.
_PARSED = 4_096
# Versions that a message names.
_NAMED = 20


@dataclass(frozen=True)
class Registration:
    """A frozen spec and its registration.

    Attributes:
        spec: the spec.
        at: time of registration (UTC, ISO 8601).
        by: name of the sensor that registered it; empty for a person.
    """

    spec: DatasetSpec
    at: str
    by: str = ""

    def dump(self) -> bytes:
        """Return the record of the registration."""
        record = {
            "spec": self.spec.model_dump(by_alias=True, mode="json"),
            "registered_at": self.at,
            **({"registered_by": self.by} if self.by else {}),
        }
        return json.dumps(record, indent=1).encode()


class Registrations:
    """The registered versions of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def names(self, dataset: str | None = None) -> list[str]:
        """All registered ``dataset@version``, or those of one dataset, sorted; one listing."""
        check_layout(self.store)
        listing = list_records(self.store, _FOLDER)
        return [version for name in listing.names if (version := _dataset_version(name, dataset))]

    def get(self, dataset: str, version: str) -> Registration:
        """A version as it was registered, read now.

        Raises:
            UserError: when it never was; names some of the versions that are.
        """
        check_layout(self.store)
        name = record_name(dataset, version)
        try:
            return _registration(self.store.read(name), name, f"{dataset}@{version}")
        except FileNotFoundError:
            raise UnknownVersion(
                f"{dataset}@{version} is not registered; registered are: {self._describe_versions(dataset)}"
            ) from None

    def read_all(
        self, dataset: str | None = None, fresh: bool = False
    ) -> Iterator[tuple[str, Registration | Exception]]:
        """Yield all versions, or those of one dataset, by ``dataset@version``, each as it is or its error.

        Args:
            fresh: as of `list_records`.
        """
        check_layout(self.store)
        listing = list_records(self.store, _FOLDER, fresh)
        versions = {name: version for name in listing.names if (version := _dataset_version(name, dataset))}
        listing.load(versions)
        for name, version in versions.items():
            try:
                split_dataset_version(version)
                yield version, _registration(listing.read(name), name, version)
            except (UserError, ValueError, OSError) as error:
                yield version, error

    def _describe_versions(self, dataset: str) -> str:
        """Describe the registered versions: those of the dataset, or else of all."""
        known = self.names(dataset) or self.names()
        more = [f"and {len(known) - _NAMED:,} more"] if len(known) > _NAMED else []
        return ", ".join([*known[:_NAMED], *more]) or f"none, in the store {self.store.root}"


def record_name(dataset: str, version: str) -> str:
    """Return the name of a version's record."""
    return f"{_FOLDER}/{dataset}/{version}.json"


def _dataset_version(name: str, dataset: str | None) -> str:
    """Return the ``dataset@version`` of a record, "" for another object, or one of another dataset."""
    parts = name.removeprefix(f"{_FOLDER}/").split("/")
    if len(parts) != 2 or not parts[1].endswith(".json") or dataset not in (None, parts[0]):
        return ""
    return f"{parts[0]}@{parts[1].removesuffix('.json')}"


def _registration(raw: bytes, name: str, version: str) -> Registration:
    try:
        return _parse(raw)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, UserError) as error:
        cause = error if isinstance(error, UserError) else type(error).__name__
        raise UserError(
            f"{version} cannot be read: {name} in the store is damaged ({cause}); restore it"
        ) from None


@lru_cache(_PARSED)
def _parse(raw: bytes) -> Registration:
    record = json.loads(raw)
    spec, at = restore_spec(record["spec"], "registry"), datetime.fromisoformat(record["registered_at"])
    return Registration(spec, in_utc(at).isoformat(), record.get("registered_by", ""))
