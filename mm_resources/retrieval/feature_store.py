"""`FeatureStore`: published features for training code and applications, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, overload

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_number, require_text
from mm_resources.retrieval.explain import explain
from mm_resources.retrieval.feature_reader import FeatureReader, SearchCall, TrainingCall
from mm_resources.retrieval.mixtures import add_columns
from mm_resources.retrieval.pin_reader import PinReader
from mm_resources.retrieval.query_vectors import QueryEncoder
from mm_resources.retrieval.remote_store import RemoteFeatureStore
from mm_resources.retrieval.search import Search, SearchRequest
from mm_resources.retrieval.set_traces import recorded_manifest, trace
from mm_resources.retrieval.training_set import TrainingSet

_EXAMPLE = "birds@v1"


class FeatureStore(PinReader, FeatureReader[TrainingSet]):
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

    def _search(self, call: SearchCall) -> list[pa.Table]:
        # All queries are answered from the same pins.
        def answer(pins: list[Pin]) -> list[pa.Table]:
            for pinned in [pin.table(call.embedder) for pin in pins] if call.verify else []:
                self.catalog.features.require_intact(pinned.table, pinned.lance_version)
            search = Search(self.catalog.features, self._encoder, pins, call.embedder)
            return [search.run(request) for request in call.requests]

        return self.read_pins(lambda: self.pins(call.versions, call.modalities), answer)

    def search_pins(self, pins: list[Pin], request: SearchRequest, embedder: str | None) -> pa.Table:
        """Search the tables of pins; the arguments and the answer are those of `search`."""
        return Search(self.catalog.features, self._encoder, pins, embedder).run(request)

    def _datasets(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        for _, _, pin in self.catalog.registry.published():
            if isinstance(pin, Exception):
                rows.append({"problem": str(pin)})
            elif pin is not None:
                rows.append(
                    {
                        "dataset_version": pin.dataset_version,
                        "modality": pin.modality,
                        "pin": pin.number,
                        "published_at": pin.published_at,
                        "data_version": pin.data_version,
                        "samples": pin.accounting.get("published"),
                        "features": pin.accounting.get("features"),
                    }
                )
        return rows

    def _training_set(self, call: TrainingCall) -> TrainingSet:
        def make(version: str, more: Sequence[str]) -> TrainingSet:
            columns = add_columns(call.columns, more)
            return self.read_pins(
                lambda: [self.published(version, name) for name in call.modalities],
                lambda pins: TrainingSet.from_pins(
                    self.catalog,
                    pins,
                    call.embedder,
                    call.where,
                    call.split,
                    columns,
                    call.classes,
                    call.verify,
                ),
            )

        if call.is_plain:
            return make(call.dataset_version, ())
        parts = [make(version, call.draw.columns).manifest for version in call.weights]
        mixture = call.draw.mix(parts, list(call.weights.values()), call.classes)
        return TrainingSet(self.catalog, mixture)

    def _training_set_of(self, manifest: dict[str, Any], verify: bool) -> TrainingSet:
        return TrainingSet.from_manifest(self.catalog, manifest, verify)

    def _find_manifest(self, digest: str) -> dict[str, Any]:
        return recorded_manifest(self.catalog, digest)

    def trace(self, of: str | dict[str, Any], samples: int = 10) -> dict[str, Any]:
        """Return the pins and the first samples of a training set, see `mm_resources.retrieval.set_traces`.

        Args:
            of: the digest that a model was trained on, or its beginning, where it is recorded
                (`TrainingSet.record`); or a manifest.
            samples: rows to return at most.

        Raises:
            UserError: for a digest that is not recorded, and where the store no longer has the rows.
        """
        given = require_text("of", of, "3e8-1f0c...") if isinstance(of, str) else of
        return trace(self.catalog, given, require_number("samples", samples, 0))

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
