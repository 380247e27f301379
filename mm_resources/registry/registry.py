"""The registry: frozen specs, with their listings, drift reports, aliases and pins."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.modalities import modalities
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, parse_spec
from mm_embed_kernels.spec.next_version import next_names, successor
from mm_resources.cell import Cell
from mm_resources.ingestion.listings import Listings
from mm_resources.ingestion.source_drift import SourceDrifts
from mm_resources.ingestion.spec_secrets import seal_spec
from mm_resources.registry.aliases import Aliases
from mm_resources.registry.pins import Pin, Pins
from mm_resources.registry.spec_check import UnknownVersion, check_spec
from mm_resources.storage.layout import check_layout, record_layout
from mm_resources.storage.secret_table import SecretTable
from mm_resources.storage.store import Store


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


class Registry:
    """Specs, listings and pins of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.listings = Listings(store)
        self.aliases = Aliases(store)
        self.drifts = SourceDrifts(self.listings)
        self.pins = Pins(store)

    def register(self, spec: DatasetSpec, by: str = "") -> bool:
        """Freeze a dataset version; return False when exactly this spec was registered before.

        How its sources are watched is no part of the spec's identity and may change. A `parent` may be added
        until the first source is listed.

        Args:
            by: name of the sensor that registered it; empty for a person.

        Raises:
            UserError: when the version is registered with another spec, or the spec names what does not
                exist.
        """
        check_spec(spec, self.spec)
        record_layout(self.store)
        name = self._spec_name(spec.name, spec.version)
        secrets, given = SecretTable(self.store), spec
        spec = seal_spec(given, secrets)
        if self.store.entry(name) is None:
            secrets.save()
        if self.store.create(name, _record(spec, datetime.now(UTC).isoformat(), by)):
            return True
        known = self.registration(spec.name, spec.version)
        # Earlier versions of the platform stored a spec as it was given.
        if known.spec.digest not in (spec.digest, given.digest):
            if not self._only_adds_parent(known.spec, (spec.digest, given.digest), spec.parent):
                raise UserError(
                    f"{spec.dataset_version} is registered with another spec, and a version stays frozen; "
                    "give the changed spec a new version"
                )
            secrets.save()
            self.store.write(name, _record(spec, known.at, known.by))
            return True
        if known.spec.watch != spec.watch:
            secrets.save()
            self.store.write(name, _record(spec, known.at, known.by))
        return False

    def _only_adds_parent(self, known: DatasetSpec, digests: Collection[str], parent: str | None) -> bool:
        """Return whether a spec is the registered one with a `parent`, and nothing was computed of it yet."""
        added = known.parent is None and known.model_copy(update={"parent": parent}).digest in digests
        return added and not any(self.listings.is_frozen(known, source) for source in known.sources)

    def proposed_parent(self, spec: DatasetSpec) -> str | None:
        """The version that a spec without `parent` follows: the last registered of its dataset, if any."""
        if spec.parent is not None:
            return None
        names = self.store.names(f"registry/datasets/{spec.name}")
        versions = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        others = [self.registration(spec.name, version) for version in versions if version != spec.version]
        last = max(others, key=lambda each: (each.at, each.spec.version), default=None)
        return last.spec.version if last else None

    def follow(self, spec: DatasetSpec, names: Iterable[str], by: str = "") -> DatasetSpec:
        """Register the version that follows another, under the first name that no other spec has taken.

        Repeated calls, and concurrent ones, register the same version.
        """
        for name in names:
            following = successor(spec, name)
            if self._is_free(following):
                self.register(following, by)
                return following
        raise ValueError("no name is left")

    def next_name(self, spec: DatasetSpec) -> str:
        """The name that `follow` would give the next version, by the spec's own scheme and today's date."""
        names = next_names(spec.version, spec.watch.names, datetime.now(UTC).date())
        return next(name for name in names if self._is_free(successor(spec, name)))

    def _is_free(self, spec: DatasetSpec) -> bool:
        """Return whether a version is not registered, or registered with this very spec."""
        try:
            return self.spec(spec.name, spec.version).digest == spec.digest
        except UserError:
            return True

    def newest_versions(self, problems: list[str] | None = None) -> list[Registration]:
        """The version of each dataset that was registered last.

        Args:
            problems: takes the versions that cannot be read, with the cause; without it, the first raises.
        """
        versions: dict[str, Registration] = {}
        for dataset_version in self.datasets():
            try:
                found = self.registration(*split_dataset_version(dataset_version))
            except (UserError, ValueError, OSError) as error:
                if problems is None:
                    raise
                problems.append(str(error))
                continue
            best = versions.setdefault(found.spec.name, found)
            versions[found.spec.name] = max(best, found, key=lambda each: (each.at, each.spec.version))
        return list(versions.values())

    @staticmethod
    def _spec_name(dataset: str, version: str) -> str:
        return f"registry/datasets/{dataset}/{version}.json"

    def spec(self, dataset: str, version: str) -> DatasetSpec:
        """The frozen spec; raises as `registration`."""
        return self.registration(dataset, version).spec

    def registration(self, dataset: str, version: str) -> Registration:
        """A version as it was registered.

        Raises:
            UserError: when it never was; names the versions that are.
        """
        check_layout(self.store)
        try:
            return _parse(self.store.read(self._spec_name(dataset, version)))
        except FileNotFoundError:
            known = ", ".join(self.datasets()) or "none"
            raise UnknownVersion(f"{dataset}@{version} is not registered; registered are: {known}") from None
        except (ValueError, KeyError, TypeError, AttributeError, UserError) as error:
            name = self._spec_name(dataset, version)
            cause = error if isinstance(error, UserError) else type(error).__name__
            raise UserError(
                f"{dataset}@{version} cannot be read: {name} in the store is damaged ({cause}); restore it"
            ) from None

    def is_registered(self, spec: DatasetSpec) -> bool:
        """Return whether a version of this name is registered, with whatever spec."""
        return self.store.entry(self._spec_name(spec.name, spec.version)) is not None

    def datasets(self) -> list[str]:
        """All registered ``dataset@version``, sorted."""
        check_layout(self.store)
        return [
            f"{dataset}@{name.removesuffix('.json')}"
            for dataset in self.store.names("registry/datasets")
            for name in self.store.names(f"registry/datasets/{dataset}")
            if name.endswith(".json")
        ]

    def cells(self, dataset_version: str, modality: str | Sequence[str] | None = None) -> list[Cell]:
        """The cells that a spec declares (an ``auto`` source may fill any); an alias is its version.

        Args:
            modality: one or several; by default, and for an empty sequence, all.

        Raises:
            UserError: for an unknown version or a modality that the spec does not declare.
        """
        if alias := self.aliases.resolve(dataset_version):
            dataset_version = alias.dataset_version
        try:
            dataset, version = split_dataset_version(dataset_version)
        except ValueError as error:
            raise UserError(str(error)) from None
        declared = self.spec(dataset, version).modalities
        names = list(modalities()) if "auto" in declared else declared
        chosen = [modality] if isinstance(modality, str) else modality or names
        for unknown in (name for name in chosen if name not in names):
            raise UserError(
                f"{dataset_version} declares no modality {unknown!r}; it declares: {', '.join(names)}"
            )
        return [Cell(dataset, version, name) for name in names if name in chosen]

    def all_cells(self, problems: list[str] | None = None) -> Iterator[Cell]:
        """Yield the cells of all registered versions; `problems` as of `newest_versions`."""
        for dataset_version in self.datasets():
            try:
                yield from self.cells(dataset_version)
            except (UserError, ValueError, OSError) as error:
                if problems is None:
                    raise
                problems.append(str(error))

    def latest_pins(
        self,
        dataset_version: str | None = None,
        modalities: Collection[str] | None = None,
        problems: list[str] | None = None,
    ) -> Iterator[Pin]:
        """Yield the latest pin of each published cell of a version, by default of all versions.

        Args:
            problems: of all versions, takes those that cannot be read, with the cause.

        Raises:
            UserError: for an unknown version or a modality that its spec does not declare.
        """
        if dataset_version is None:
            every = self.all_cells(problems)
            cells = [cell for cell in every if modalities is None or cell.modality in modalities]
        else:
            names: Iterable[str | None] = [None] if modalities is None else modalities
            cells = [cell for name in names for cell in self.cells(dataset_version, name)]
        for cell in cells:
            try:
                pin = self.pins.get(cell)
            except (UserError, ValueError, OSError) as error:
                if problems is None:
                    raise
                problems.append(str(error))
                continue
            if pin:
                yield pin

    def published_pins(self, dataset_version: str | None = None) -> Iterator[Pin]:
        """Yield the pins that readers get: the latest of each cell; behind an alias, the promoted ones.

        Raises:
            UserError: for an unknown version, or an alias to which nothing was promoted.
        """
        alias = self.aliases.resolve(dataset_version) if dataset_version is not None else None
        if dataset_version is None or alias is None:
            yield from self.latest_pins(dataset_version)
        else:
            yield from (self.published_pin(dataset_version, modality) for modality in alias.pins)

    def published_pin(self, dataset_version: str, modality: str) -> Pin:
        """The pin of a cell; behind an alias, the one that was promoted.

        Raises:
            UserError: when nothing is published of it.
        """
        cell = self.cells(dataset_version, modality)[0]
        alias = self.aliases.resolve(dataset_version)
        if alias is not None and modality not in alias.pins:
            raise UserError(
                f"{dataset_version} is {alias.dataset_version}, of which no {modality} was promoted"
            )
        pin = self.pins.get(cell, alias.pins[modality] if alias else None)
        if pin is None:
            raise UserError(
                f"nothing is published of {dataset_version} {modality}; run `mm backfill {dataset_version}`"
            )
        return pin


def _record(spec: DatasetSpec, at: str, by: str) -> bytes:
    record = {
        "spec": spec.model_dump(by_alias=True, mode="json"),
        "registered_at": at,
        **({"registered_by": by} if by else {}),
    }
    return json.dumps(record, indent=1).encode()


@lru_cache(maxsize=64)
def _parse(raw: bytes) -> Registration:
    record = json.loads(raw)
    return Registration(
        parse_spec(json.dumps(record["spec"]), "registry"),
        record["registered_at"],
        record.get("registered_by", ""),
    )
