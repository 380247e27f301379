"""`FeatureStore`: published features for training code and applications, without Dagster."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_resources.catalog import Catalog
from mm_resources.registry.pins import Pin
from mm_resources.retrieval.arguments import require_flag, require_text, require_texts
from mm_resources.retrieval.explain import explain
from mm_resources.retrieval.mixtures import Draw, add_columns, check_columns, check_filters, require_weights
from mm_resources.retrieval.pin_reader import PinReader
from mm_resources.retrieval.query_vectors import Query, QueryEncoder
from mm_resources.retrieval.remote_store import RemoteFeatureStore
from mm_resources.retrieval.search import Search, SearchRequest
from mm_resources.retrieval.training_set import TrainingSet

_EXAMPLE = "birds@v1"


class FeatureStore(PinReader):
    """Published features: search, training sets, decisions, explanations."""

    def __init__(self, catalog: Catalog, encoder: QueryEncoder | None = None) -> None:
        self.catalog = catalog
        self._encoder = encoder or QueryEncoder()

    @staticmethod
    def open(root: str | os.PathLike[str] | None = None, *, token: str = "") -> FeatureStore:
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
            # It has the methods of this class that read; nothing else of a store is behind a service.
            return cast(FeatureStore, RemoteFeatureStore(root, token))
        return FeatureStore(Catalog.open(root))

    def search(  # noqa: PLR0913 - the public API
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
        verify: bool = False,
    ) -> pa.Table:
        """Search published features.

        Args:
            query: a text, a path or bytes of a medium, a vector, or ``id:`` and a feature, segment or sample
                id.
            dataset_version: a version or alias, several, or None for all that have published the modality.
            modality: a modality, or several whose tables share a space.
            embedder: embedder whose tables are searched; by default the primary one.
            k: number of hits, at least 1.
            where: SQL over the feature columns, applied before the search: one expression, with texts in
                single quotes.
            mode: ``vector``; ``text``, for words in texts and transcripts; ``hybrid``, both by reciprocal
                rank fusion.
            group_by: ``sample`` or ``entity``, to return the best hit of each in each version; so a long
                video does not fill the result.
            find: ``neighbours``; ``duplicates`` (other samples with a cosine of 0.95 or more);
                ``hard_negatives`` (near, but of another label).
            label: label of the query, for hard negatives; by default that of the sample that an id names.
            verify: whether to compare the files of the tables and their indexes with their hashes before,
                which reads them once.

        Returns:
            The k best hits, best first: the columns `mm_resources.retrieval.search.HIT`, ``key``, ``text``,
            ``dataset_version`` and ``score``, which is the cosine similarity, BM25 for ``text``, or the fused
            ranks for ``hybrid``.

        Raises:
            UserError: for an argument of another type or out of its range (before a table is opened), when
                nothing is published, the query cannot be encoded in the tables' space, the tables use several
                spaces, or the filter is invalid.
        """
        request = SearchRequest(query, k, where, mode, group_by, find, label)
        request.check()
        names = require_texts("modality", modality, "image")
        versions = (
            None if dataset_version is None else require_texts("dataset_version", dataset_version, _EXAMPLE)
        )
        if embedder is not None:
            require_text("embedder", embedder, "wordllama")
        require_flag("verify", verify)

        def answer(pins: list[Pin]) -> pa.Table:
            for pinned in [pin.table(embedder) for pin in pins] if verify else []:
                self.catalog.features.require_intact(pinned.table, pinned.lance_version)
            return self.search_pins(pins, request, embedder)

        return self.read_pins(lambda: self.pins(versions, names), answer)

    def search_pins(self, pins: list[Pin], request: SearchRequest, embedder: str | None) -> pa.Table:
        """Search the tables of pins; the arguments and the answer are those of `search`."""
        return Search(self.catalog.features, self._encoder, pins, embedder).run(request)

    def training_set(  # noqa: PLR0913 - the public API
        self,
        dataset_version: str | Mapping[str, float] | None = None,
        *,
        modality: str | Sequence[str] | None = None,
        where: str | Mapping[str, str] | None = None,
        split: str | None = None,
        columns: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        embedder: str | Mapping[str, str] | None = None,
        classes: Sequence[str] | None = None,
        balance: str | None = None,
        temperature: float | None = None,
        epoch_rows: int | None = None,
        seed: int = 0,
        manifest: dict[str, Any] | None = None,
        verify: bool = False,
    ) -> TrainingSet:
        """Return a pinned set of features; several modalities are joined on ``entity_id``.

        Args:
            dataset_version: a version or alias; or several with weights, ``{"birds@v2": 3, "web@v5": 1}``:
                of the rows of each epoch, three in four are drawn from the first.
            modality: a modality, or several to join.
            where: SQL over the feature columns: one expression, with texts in single quotes. Of several
                modalities, the rows of each must pass it; or one for each, ``{"image": "width > 64"}``.
            split: split whose rows are chosen.
            columns: columns beside ids and vector, of all modalities or by modality; by default ``label``.
            embedder: embedder whose table is read; by default the primary one. Of several modalities, each
                must have it; or a mapping from modality to embedder, of which those not named are primary.
            classes: names of the classes of labels, by number; by default the labels of all splits, sorted.
            balance: a column, such as ``label``, whose values share the rows of an epoch alike, or by
            `temperature`. temperature: 1 for values as frequent as in the set (a stratified draw), larger
            ones for more equal shares:
                ``count ** (1 / temperature)``.
            epoch_rows: rows of an epoch; by default as many as the versions have.
            seed: of what is drawn, with weights, `balance` or `epoch_rows`.
            manifest: manifest of an earlier training set, in place of all other arguments: returns the same
                rows.
            verify: whether to compare the tables' files with their hashes before; reads them once.

        Raises:
            UserError: for an argument of another type (before a table is opened), when nothing is published,
                a column, an embedder or the split is missing, the filter is invalid, or the store no longer
                has the manifest's rows.
        """
        require_flag("verify", verify)
        draw = Draw(balance, temperature, epoch_rows, seed)
        given = (
            dataset_version,
            modality,
            where,
            split,
            columns,
            embedder,
            classes,
            balance,
            temperature,
            epoch_rows,
        )
        if manifest is not None:
            if any(each is not None for each in given):
                raise UserError("training_set takes a manifest or other arguments, not both; leave out one")
            return TrainingSet.from_manifest(self.catalog, manifest, verify)
        if dataset_version is None or modality is None:
            raise UserError("training_set needs a dataset version and a modality, or a manifest")
        weights = require_weights(dataset_version, _EXAMPLE)
        names = require_texts("modality", modality, "image")
        chosen = check_columns(columns, names)
        check_filters(where, names)
        if split is not None:
            require_text("split", split, "train")
        if classes is not None:
            classes = require_texts("classes", classes, "cat")
        draw.check()
        _check_embedders(embedder, names)

        def make(version: str, more: Sequence[str]) -> TrainingSet:
            return self.read_pins(
                lambda: [self.published(version, name) for name in names],
                lambda pins: TrainingSet.from_pins(
                    self.catalog, pins, embedder, where, split, add_columns(chosen, more), classes, verify
                ),
            )

        if isinstance(dataset_version, str) and draw.is_plain:
            return make(dataset_version, ())
        parts = [make(version, draw.columns) for version in weights]
        return TrainingSet(
            self.catalog, draw.mix([part.manifest for part in parts], list(weights.values()), classes)
        )

    def decisions(self, dataset_version: str, modality: str) -> pa.Table:
        """Return the decision for each curated sample: kept, rules, split.

        Decisions are those of the published version; before the first publish, those of the curated table.

        Raises:
            UserError: when the cell is not curated.
        """
        require_text("dataset_version", dataset_version, _EXAMPLE)
        require_text("modality", modality, "image")
        cell = self.catalog.registry.cells(dataset_version, modality)[0]

        def pins() -> list[Pin]:
            if self.catalog.registry.aliases.resolve(dataset_version):
                return [self.published(dataset_version, modality)]
            pin = self.catalog.registry.pins.get(cell)
            return [pin] if pin else []

        def read(pins: list[Pin]) -> pa.Table:
            version = pins[0].stages["curated_samples"]["lance_version"] if pins else None
            return self.catalog.tables.read("curated_samples", cell, columns, version=version).read_all()

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

    def explain(self, identifier: str, dataset_version: str | None = None) -> dict[str, Any]:
        """Return the lineage of a feature, segment or sample. See `mm_resources.retrieval.explain`."""
        require_text("identifier", identifier, "id:FEATURE_ID")
        if dataset_version is not None:
            require_text("dataset_version", dataset_version, _EXAMPLE)
        # A version whose files are damaged costs itself alone, and is named where nothing else has the id.
        problems: list[str] = []
        every = problems if dataset_version is None else None
        return self.read_pins(
            lambda: list(self.catalog.registry.published_pins(dataset_version, every)),
            lambda pins: explain(self.catalog, identifier, pins, problems),
        )


def _check_embedders(embedder: object, names: list[str]) -> None:
    """Check that an argument is None, an embedder, or a mapping from chosen modalities to embedders."""
    if isinstance(embedder, Mapping):
        for modality, name in embedder.items():
            if modality not in names:
                raise UserError(
                    f"embedder names one of {modality!r}, but the modalities are: {', '.join(names)}"
                )
            require_text(f"embedder of {modality}", name, "wordllama")
    elif embedder is not None:
        require_text("embedder", embedder, "wordllama")
