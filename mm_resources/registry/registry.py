"""The registry: frozen specs, with their listings, drift reports, aliases and pins."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.identity import split_dataset_version
from mm_embed_kernels.modalities import modalities
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.next_version import next_names, successor
from mm_resources.cell import Cell
from mm_resources.ingestion.listings import Listings
from mm_resources.ingestion.source_drift import SourceDrifts
from mm_resources.ingestion.spec_secrets import seal_spec
from mm_resources.registry.aliases import Aliases
from mm_resources.registry.pins import Pin, Pins
from mm_resources.registry.registrations import Registration, Registrations, record_name
from mm_resources.registry.spec_check import check_spec
from mm_resources.storage.layout import record_layout
from mm_resources.storage.secret_table import SecretTable
from mm_resources.storage.store import Store

# Versions among which one with the rows of a stage is sought.
_OTHER_VERSIONS = 16


class Registry:
    """Specs, listings and pins of a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.listings = Listings(store)
        self.aliases = Aliases(store)
        self.drifts = SourceDrifts(self.listings)
        self.pins = Pins(store)
        self.registrations = Registrations(store)

    def register(self, spec: DatasetSpec, by: str = "") -> bool:
        """Freeze a dataset version; return False when exactly this spec was registered before.

        How its sources are watched and its card are no part of the spec's identity and may change. A `parent`
        may be added until the first source is listed.

        Args:
            by: name of the sensor that registered it; empty for a person.

        Raises:
            UserError: when the version is registered with another spec, or the spec names what does not
                exist.
        """
        check_spec(spec, self.spec)
        record_layout(self.store)
        name = record_name(spec.name, spec.version)
        secrets, given = SecretTable(self.store), spec
        spec = seal_spec(given, secrets)
        if self.store.entry(name) is None:
            secrets.save()
        if self.store.create(name, Registration(spec, self._time_of_next(spec), by).dump()):
            return True
        known = self.registration(spec.name, spec.version)
        # Earlier versions of the platform stored a spec as it was given.
        if known.spec.digest not in (spec.digest, given.digest):
            if not self._only_adds_parent(known.spec, (spec.digest, given.digest), spec.parent):
                remedy = "give the changed spec a new version"
                if not any(self.pins.numbers(cell) for cell in declared_cells(known.spec)):
                    command = f"mm unregister {spec.dataset_version}"
                    remedy += f"; or, since nothing of it is published, run `{command}` first"
                raise UserError(
                    f"{spec.dataset_version} is registered with another spec, and a version stays frozen; "
                    f"{remedy}"
                )
            secrets.save()
            self.store.write(name, Registration(spec, known.at, known.by).dump())
            return True
        if (known.spec.watch, known.spec.card) != (spec.watch, spec.card):
            secrets.save()
            self.store.write(name, Registration(spec, known.at, known.by).dump())
        return False

    def _time_of_next(self, spec: DatasetSpec) -> str:
        """Return the time of a registration: now, or after the dataset's last one, whose clock was ahead."""
        times = [
            datetime.fromisoformat(found.at)
            for _, found in self.registrations.read_all(spec.name)
            if isinstance(found, Registration)
        ]
        return max([datetime.now(UTC), *(time + timedelta(microseconds=1) for time in times)]).isoformat()

    def _only_adds_parent(self, known: DatasetSpec, digests: Collection[str], parent: str | None) -> bool:
        """Return whether a spec is the registered one with a `parent`, and nothing was computed of it yet."""
        added = known.parent is None and known.model_copy(update={"parent": parent}).digest in digests
        return added and not any(self.listings.is_frozen(known, source) for source in known.sources)

    def proposed_parent(self, spec: DatasetSpec) -> str | None:
        """The version that a spec without `parent` follows: the last registered of its dataset, if any."""
        if spec.parent is not None:
            return None
        others: list[Registration] = []
        for version, found in self.registrations.read_all(spec.name):
            if version == spec.dataset_version:
                continue
            if isinstance(found, Exception):
                raise found
            others.append(found)
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
        for _, found in self.registrations.read_all():
            if isinstance(found, Exception):
                _note(found, problems)
                continue
            best = versions.setdefault(found.spec.name, found)
            versions[found.spec.name] = max(best, found, key=lambda each: (each.at, each.spec.version))
        return list(versions.values())

    def spec(self, dataset: str, version: str) -> DatasetSpec:
        """The frozen spec; raises as `registration`."""
        return self.registration(dataset, version).spec

    def registration(self, dataset: str, version: str) -> Registration:
        """A version as it was registered; see `Registrations.get`."""
        return self.registrations.get(dataset, version)

    def is_registered(self, spec: DatasetSpec) -> bool:
        """Return whether a version of this name is registered, with whatever spec."""
        return self.store.entry(record_name(spec.name, spec.version)) is not None

    def datasets(self) -> list[str]:
        """All registered ``dataset@version``, sorted."""
        return self.registrations.names()

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
        names = [cell.modality for cell in declared_cells(self.spec(dataset, version))]
        chosen = [modality] if isinstance(modality, str) else modality or names
        for unknown in (name for name in chosen if name not in names):
            raise UserError(
                f"{dataset_version} declares no modality {unknown!r}; it declares: {', '.join(names)}"
            )
        return [Cell(dataset, version, name) for name in names if name in chosen]

    def all_cells(self, problems: list[str] | None = None) -> Iterator[Cell]:
        """Yield the cells of all registered versions; `problems` as of `newest_versions`."""
        for _, found in self.registrations.read_all():
            if isinstance(found, Exception):
                _note(found, problems)
            else:
                yield from declared_cells(found.spec)

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
        if dataset_version is not None:
            names: Iterable[str | None] = [None] if modalities is None else modalities
            cells = [cell for name in names for cell in self.cells(dataset_version, name)]
            yield from filter(None, map(self.pins.get, cells))
            return
        for _, _, found in self.published(modalities):
            if isinstance(found, Exception):
                _note(found, problems)
            elif found is not None:
                yield found

    def published(
        self, modalities: Collection[str] | None = None
    ) -> Iterator[tuple[str, Cell | None, Pin | Exception | None]]:
        """Yield each cell of all versions with its latest pin, or the error of reading its version or pin.

        Yields:
            ``dataset@version``; the cell, None of a version that cannot be read; the pin, None where nothing
            is published.
        """
        cells: list[tuple[str, Cell | None, Exception | None]] = []
        for version, found in self.registrations.read_all():
            if isinstance(found, Exception):
                cells.append((version, None, found))
                continue
            cells += [
                (version, cell, None)
                for cell in declared_cells(found.spec)
                if modalities is None or cell.modality in modalities
            ]
        pins = self.pins.latest([cell for _, cell, _ in cells if cell is not None])
        for version, cell, error in cells:
            yield version, cell, error if cell is None else next(pins)

    def published_pins(
        self, dataset_version: str | None = None, problems: list[str] | None = None
    ) -> Iterator[Pin]:
        """Yield the pins that readers get: the latest of each cell; behind an alias, the promoted ones.

        Args:
            problems: as of `latest_pins`.

        Raises:
            UserError: for an unknown version, or an alias to which nothing was promoted.
        """
        alias = self.aliases.resolve(dataset_version) if dataset_version is not None else None
        if dataset_version is None or alias is None:
            yield from self.latest_pins(dataset_version, problems=problems)
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


def declared_cells(spec: DatasetSpec) -> list[Cell]:
    """Return the cells that a spec declares; an ``auto`` source may fill any."""
    declared = spec.modalities
    names = list(modalities()) if "auto" in declared else declared
    return [Cell(spec.name, spec.version, name) for name in names]


def _note(error: Exception, problems: list[str] | None) -> None:
    """Add an error to the problems; raise it where they are not collected."""
    if problems is None:
        raise error
    problems.append(str(error))


def other_versions(registry: Registry, cell: Cell) -> Iterator[Cell]:
    """Yield the cells of a modality of a dataset's other versions, those registered last first."""
    found = [
        (each.at, each.spec.version)
        for _, each in registry.registrations.read_all(cell.dataset)
        if isinstance(each, Registration) and each.spec.version != cell.version
    ]
    for _, version in sorted(found, reverse=True)[:_OTHER_VERSIONS]:
        yield Cell(cell.dataset, version, cell.modality)
