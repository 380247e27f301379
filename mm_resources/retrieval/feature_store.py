"""`FeatureStore`: published features for training code and applications, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar, overload

import pyarrow as pa

from mm_embed_kernels.errors import UserError, unknown_choice
from mm_embed_kernels.modalities import modalities
from mm_resources.catalog import Catalog
from mm_resources.features.removed_rows import RemovedRows, removal_errors, versions_of
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_text
from mm_resources.retrieval.explain import explain
from mm_resources.retrieval.feature_reader import FeatureReader, SearchCall, TrainingCall
from mm_resources.retrieval.query_vectors import QueryEncoder
from mm_resources.retrieval.remote_store import RemoteFeatureStore
from mm_resources.retrieval.search import Search, SearchRequest
from mm_resources.retrieval.training_set import TrainingSet

_EXAMPLE = "birds@v1"
# How often an answer is read again from new pins, after the rows of the old ones were forgotten meanwhile.
_TRIES = 5
Answer = TypeVar("Answer")


class FeatureStore(FeatureReader[TrainingSet]):
    """Published features: search, training sets, decisions, explanations."""

    def __init__(self, catalog: Catalog, encoder: QueryEncoder | None = None) -> None:
        self.catalog = catalog
        self._encoder = encoder or QueryEncoder()

    @overload
    @staticmethod
    def open(root: os.PathLike[str] | None = None, *, token: str = "") -> FeatureStore: ...

    @overload
    @staticmethod
    def open(root: str, *, token: str = "") -> FeatureReader[Any]: ...

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None, *, token: str = "") -> FeatureReader[Any]:
        """Open the feature store at a root (a folder or URL), by default ``MM_STORE``.

        Args:
            root: with ``http://`` or ``https://``, the address of a service (`mm serve`), whose answers are
                those of the store that it serves.
            token: token of that service.

        Raises:
            UserError: when the root is neither a path nor a text.
        """
        if root is not None and not isinstance(root, str | os.PathLike):
            raise UserError(f"root is {root!r}; give a folder or a URL")
        if isinstance(root, str) and root.startswith(("http://", "https://")):
            return RemoteFeatureStore(root, token)
        return FeatureStore(Catalog.open(root))

    def _search(self, call: SearchCall) -> pa.Table:
        def answer(pins: list[Pin]) -> pa.Table:
            for pinned in [pin.table(call.embedder) for pin in pins] if call.verify else []:
                self.catalog.features.require_intact(pinned.table, pinned.lance_version)
            return self.search_pins(pins, call.request, call.embedder)

        return self.read_pins(lambda: self.pins(call.versions, call.modalities), answer)

    def search_pins(self, pins: list[Pin], request: SearchRequest, embedder: str | None) -> pa.Table:
        """Search the tables of pins; the arguments and the answer are those of `search`."""
        return Search(self.catalog.features, self._encoder, pins, embedder).run(request)

    def read_pins(self, resolve: Callable[[], list[Pin]], read: Callable[[list[Pin]], Answer]) -> Answer:
        """Return an answer that is read from pins.

        Forgetting may replace the pins while they are read, and remove the rows that they named: then the
        answer is read once more, from the pins as they are by then.

        Raises:
            RemovedRows: when it happens too often.
        """
        for tries_left in range(_TRIES, -1, -1):
            pins = resolve()
            try:
                with removal_errors(
                    self.catalog.receipts, [version for pin in pins for version in versions_of(pin)]
                ):
                    return read(pins)
            except RemovedRows:
                if not tries_left:
                    raise
        raise AssertionError("unreachable")

    def pins(self, versions: list[str] | None, names: list[str]) -> list[Pin]:
        """Return the pins of the requested versions, each once; of all versions when none is given."""
        if versions is not None:
            found = [self.published(version, name) for version in versions for name in names]
            # A version and its alias may name the same pin.
            return list({(pin.cell, pin.number): pin for pin in found}.values())
        # A version whose files are damaged costs itself alone, and is named where nothing else is found.
        problems: list[str] = []
        pins = list(self.catalog.registry.latest_pins(modalities=names, problems=problems))
        if not pins:
            for name in names:
                if name not in modalities() and not problems:
                    raise unknown_choice("modality", name, modalities())
            raise UserError(
                "; ".join(problems)
                or f"nothing is published of any {' or '.join(names)} in {self.catalog.store.root}; "
                "run `mm backfill DATASET@VERSION`, or set MM_STORE"
            )
        return pins

    def _training_set(self, call: TrainingCall) -> TrainingSet:
        return self.read_pins(
            lambda: [self.published(call.dataset_version, name) for name in call.modalities],
            lambda pins: TrainingSet.from_pins(
                self.catalog, pins, call.embedder, call.where, call.split, call.columns, call.verify
            ),
        )

    def _training_set_of(self, manifest: dict[str, Any], verify: bool) -> TrainingSet:
        return TrainingSet.from_manifest(self.catalog, manifest, verify)

    def _decisions(self, dataset_version: str, modality: str) -> pa.Table:
        cell = self.catalog.registry.cells(dataset_version, modality)[0]

        def pins() -> list[Pin]:
            if self.catalog.registry.aliases.resolve(dataset_version):
                return [self.published(dataset_version, modality)]
            pin = self.catalog.registry.pins.get(cell)
            return [pin] if pin else []

        def read(pins: list[Pin]) -> pa.Table:
            at = pins[0].place("curated_samples") if pins else None
            return self.catalog.tables.read("curated_samples", cell, columns, at=at).read_all()

        columns = [
            "sample_id",
            "key",
            "kept",
            "rule",
            "reason",
            "rules",
            "duplicate_group",
            "duplicates",
            "split_group",
            "split",
        ]
        return self.read_pins(pins, read)

    def pick(self, dataset_version: str, modality: str, name: str) -> pa.Table:
        """Return a pick: ``sample_id``, ``rank``, ``value``, ``reason`` ..., the first picked first."""
        cell = self.published(dataset_version, modality).cell
        return self.catalog.picks.read(cell, require_text("name", name, "diversity-1000"))

    def _explain(self, identifier: str, dataset_version: str | None) -> dict[str, Any]:
        # A version whose files are damaged costs itself alone, and is named where nothing else has the id.
        problems: list[str] = []
        every = problems if dataset_version is None else None
        return self.read_pins(
            lambda: list(self.catalog.registry.published_pins(dataset_version, every)),
            lambda pins: explain(self.catalog, identifier, pins, problems),
        )

    def published(self, dataset_version: str, modality: str) -> Pin:
        """Return the pin of a cell; for an alias, the promoted one. See `Registry.published_pin`."""
        require_text("dataset_version", dataset_version, _EXAMPLE)
        require_text("modality", modality, "image")
        return self.catalog.registry.published_pin(dataset_version, modality)
