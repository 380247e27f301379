"""`FeatureStore`, the entry point for training code and applications: published features, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.explain import explain
from mm_resources.retrieval.query_vectors import Query, QueryEncoder
from mm_resources.retrieval.search import Search
from mm_resources.retrieval.training_set import TrainingSet


class FeatureStore:
    """Published features: search, training sets, decisions, explanations."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._encoder = QueryEncoder()

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None) -> FeatureStore:
        """Open the feature store of a store's root, by default of ``MM_STORE``."""
        return FeatureStore(Catalog.open(root))

    def search(
        self,
        query: Query,
        *,
        dataset_version: str | Sequence[str] | None = None,
        modality: str | Sequence[str],
        embedder: str | None = None,
        k: int = 10,
        where: str | None = None,
        mode: str = "vector",
        group_by: str | None = None,
        find: str = "neighbours",
        label: str | None = None,
    ) -> pa.Table:
        """The best k features, best first, of what is published.

        Args:
            query: text, a media path or bytes, a vector, or ``id:`` and a feature, segment or sample id.
            dataset_version: one version or alias, several, or None: all that have published the modality.
            modality: one, or several whose tables share a space.
            embedder: name of the embedder whose tables are searched; the primary one by default.
            where: SQL over the feature columns, applied before the search.
            mode: ``vector``; ``text``, for words in texts and transcripts; ``hybrid``, both by reciprocal rank fusion.
            group_by: ``sample`` or ``entity``: the best hit of each, so that a long video does not fill the page.
            find: ``neighbours``; ``duplicates`` (other samples with a cosine of 0.95 or more); ``hard_negatives`` (near, but of
                another label).
            label: of the query, for hard negatives; by default that of the sample that an id names.

        Returns:
            The columns of a hit, ``key``, ``text``, ``dataset_version`` and ``score``: cosine similarity, BM25 for
            ``text``, the fused ranks for ``hybrid``.

        Raises:
            UserError: when nothing is published, the query fits no space of the tables, they lie in several spaces, or the
                filter is wrong.
        """
        pins = self._pins(dataset_version, [modality] if isinstance(modality, str) else list(modality))
        return Search(self.catalog.features, self._encoder, pins, embedder).run(
            query, k, where, mode, group_by, find, label
        )

    def _pins(self, dataset_version: str | Sequence[str] | None, names: list[str]) -> list[Pin]:
        """What is published of the versions that were asked for, each once."""
        if dataset_version is not None:
            versions = (
                [dataset_version]
                if isinstance(dataset_version, str)
                else list(dict.fromkeys(dataset_version))
            )
            return [self.published(version, name) for version in versions for name in names]
        cells = [
            cell
            for version in self.catalog.registry.datasets()
            for cell in self.catalog.registry.cells(version)
            if cell.modality in names
        ]
        pins = [pin for cell in cells if (pin := self.catalog.registry.pin(cell))]
        if not pins:
            raise UserError(
                f"nothing is published of any {' or '.join(names)}; run `mm backfill DATASET@VERSION`"
            )
        return pins

    def training_set(
        self,
        dataset_version: str | None = None,
        *,
        modality: str | list[str] | None = None,
        where: str | None = None,
        split: str | None = None,
        columns: list[str] | None = None,
        embedder: str | None = None,
        manifest: dict[str, Any] | None = None,
    ) -> TrainingSet:
        """A pinned set of features; several modalities are joined on ``entity_id``.

        Args:
            manifest: of an earlier training set, instead of everything else: the same rows again.
        """
        if manifest is not None:
            return TrainingSet.from_manifest(self.catalog, manifest)
        if dataset_version is None or modality is None:
            raise UserError("training_set needs a dataset version and a modality, or a manifest")
        names = [modality] if isinstance(modality, str) else modality
        pins = [self.published(dataset_version, name) for name in names]
        return TrainingSet.pinned(self.catalog, pins, embedder, where, split, columns or ["label"])

    def decisions(self, dataset_version: str, modality: str) -> pa.Table:
        """Every curated sample's decision as published (before the first publish: as curated): kept, rules, split."""
        cell = self.catalog.registry.cells(dataset_version, modality)[0]
        pin = (
            self.published(dataset_version, modality)
            if self.catalog.registry.aliases.resolve(dataset_version)
            else self.catalog.registry.pin(cell)
        )
        version = pin.stages["curated_samples"]["lance_version"] if pin else None
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
        try:
            return self.catalog.tables.read("curated_samples", cell, columns, version=version).read_all()
        except LookupError as error:
            raise UserError(f"{error}; run `mm backfill {dataset_version}`") from None

    def explain(self, identifier: str, dataset_version: str | None = None) -> dict[str, Any]:
        """Where a feature (or segment, or sample) came from: the whole chain. See `mm_resources.retrieval.explain`."""
        return explain(self.catalog, identifier, dataset_version)

    def published(self, dataset_version: str, modality: str) -> Pin:
        """The pin of a cell; behind an alias, the promoted one. See `Registry.published`."""
        return self.catalog.registry.published(dataset_version, modality)
