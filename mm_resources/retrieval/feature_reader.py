"""The base of `FeatureStore` and of its counterpart behind a service: the calls of readers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa

from mm_embed_kernels.errors import UserError
from mm_resources.retrieval.arguments import require_flag, require_text, require_texts
from mm_resources.retrieval.mixtures import Columns, Draw, check_columns, check_filters, require_weights
from mm_resources.retrieval.query_values import read_queries
from mm_resources.retrieval.query_vectors import Query
from mm_resources.retrieval.search import SearchRequest

_EXAMPLE = "birds@v1"
DATASETS = pa.schema(
    {
        "dataset_version": pa.string(),
        "modality": pa.string(),
        "pin": pa.int64(),
        "published_at": pa.string(),
        "data_version": pa.string(),
        "samples": pa.int64(),
        "features": pa.int64(),
        "problem": pa.string(),
    }
)
# What a training set is: `TrainingSet`, or `RemoteTrainingSet` behind a service.
Rows = TypeVar("Rows", covariant=True)


@dataclass(frozen=True)
class SearchCall:
    """The checked arguments of `FeatureReader.search`; a request for each query."""

    requests: list[SearchRequest]
    versions: list[str] | None
    modalities: list[str]
    embedder: str | None
    verify: bool


@dataclass(frozen=True)
class TrainingCall:
    """The checked arguments of `FeatureReader.training_set`, of a set without manifest.

    Attributes:
        weights: versions or aliases with their weights; one version has the weight 1.
        is_mixture: whether versions were given with weights.
    """

    weights: dict[str, float]
    is_mixture: bool
    modalities: list[str]
    where: str | Mapping[str, str] | None
    split: str | None
    columns: Columns
    embedder: str | Mapping[str, str] | None
    classes: list[str] | None
    draw: Draw
    verify: bool

    @property
    def is_plain(self) -> bool:
        """True where each row of one version comes once an epoch."""
        return not self.is_mixture and self.draw.is_plain

    @property
    def dataset_version(self) -> str:
        """The version of a set that is no mixture."""
        return next(iter(self.weights))


class FeatureReader(ABC, Generic[Rows]):
    """Published features: search, training sets, decisions, explanations.

    Arguments are checked here, in the process of the caller: a store and a service refuse the same ones in
    the same words.
    """

    def search(  # noqa: PLR0913 - the public API
        self,
        query: Query | Sequence[Any] | Any,
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
            query: a text, a path or bytes of a medium, a picture (of Pillow, or uint8 [height, width, 3]), a
                vector (list, array or tensor), or ``id:`` and a feature, segment or sample id. Or several: a
                list of these, or an array of vectors, [n, dimension].
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
            ranks for ``hybrid``. Of several queries, the hits of each follow each other, with the number of
            their query in the column ``query``, int64.

        Raises:
            UserError: for an argument of another type or out of its range (before a table is opened), when
                nothing is published, the query cannot be encoded in the tables' space, the tables use several
                spaces, or the filter is invalid.
        """
        queries, are_several = read_queries(query)
        requests = [SearchRequest(each, k, where, mode, group_by, find, label) for each in queries]
        for number, request in enumerate(requests):
            _check_request(request, f"query {number}: " if are_several else "")
        names = require_texts("modality", modality, "image")
        versions = (
            None if dataset_version is None else require_texts("dataset_version", dataset_version, _EXAMPLE)
        )
        if embedder is not None:
            require_text("embedder", embedder, "wordllama")
        require_flag("verify", verify)
        found = self._search(SearchCall(requests, versions, names, embedder, verify))
        return _number_hits(found) if are_several else found[0]

    def datasets(self) -> pa.Table:
        """Return what is published: a row for each cell with the columns of `DATASETS`.

        ``samples`` of the pin were published, ``features`` are its rows. A version whose files are damaged
        has its ``problem`` in a row of its own, and null in all else.
        """
        return pa.Table.from_pylist(self._datasets(), DATASETS)

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
        manifest: dict[str, Any] | str | None = None,
        verify: bool = False,
    ) -> Rows:
        """Return a pinned set of features; several modalities are joined on ``entity_id``.

        Args:
            dataset_version: a version or alias; or several with weights, ``{"birds@v2": 3, "web@v5": 1}``:
                of the rows of each epoch, three in four are drawn from the first.
            modality: a modality, or several to join.
            where: SQL over the feature columns: one expression, with texts in single quotes. Of several
                modalities, the rows of each must pass it; or one for each, ``{"image": "width > 64"}``.
            split: split whose rows are chosen; ``pick:NAME`` or ``unpicked:NAME``: by a pick.
            columns: columns beside ids and vector, of all modalities or by modality; by default ``label``.
            embedder: embedder whose table is read; by default the primary one. Of several modalities, each
                must have it; or a mapping from modality to embedder, of which those not named are primary.
            classes: names of the classes of labels, by number; by default the labels of all splits, sorted.
            balance: a column, such as ``label``, whose values share the rows of an epoch alike, or by
                `temperature`.
            temperature: 1 for values as frequent as in the set (a stratified draw), larger ones for more
                equal shares: ``count ** (1 / temperature)``.
            epoch_rows: rows of an epoch; by default as many as the versions have.
            seed: of what is drawn, with weights, `balance` or `epoch_rows`.
            manifest: manifest of an earlier training set, or its digest where it is recorded in the store
                (`TrainingSet.record`), in place of all other arguments: returns the same rows.
            verify: whether to compare the tables' files with their hashes before; reads them once.

        Raises:
            UserError: for an argument of another type (before a table is opened), when nothing is published,
                a column, an embedder or the split is missing, the filter is invalid, or the store no longer
                has the manifest's rows.
        """
        require_flag("verify", verify)
        draw = Draw(balance, temperature, epoch_rows, seed)
        if manifest is not None:
            given = (dataset_version, modality, where, split, columns, embedder, classes)
            if any(each is not None for each in given) or draw != Draw():
                raise UserError("training_set takes a manifest or other arguments, not both; leave out one")
            known = self._find_manifest(manifest) if isinstance(manifest, str) else manifest
            return self._training_set_of(known, verify)
        if dataset_version is None or modality is None:
            raise UserError("training_set needs a dataset version and a modality, or a manifest")
        weights = require_weights(dataset_version, _EXAMPLE)
        names = require_texts("modality", modality, "image")
        chosen = check_columns(columns, names)
        check_filters(where, names)
        if split is not None:
            require_text("split", split, "train")
        named = None if classes is None else require_texts("classes", classes, "cat")
        draw.check()
        _check_embedders(embedder, names)
        is_mixture = isinstance(dataset_version, Mapping)
        return self._training_set(
            TrainingCall(weights, is_mixture, names, where, split, chosen, embedder, named, draw, verify)
        )

    def decisions(self, dataset_version: str, modality: str) -> pa.Table:
        """Return the decision for each curated sample: kept, rules, split.

        Decisions are those of the published version; before the first publish, those of the curated table.

        Raises:
            UserError: when the cell is not curated.
        """
        require_text("dataset_version", dataset_version, _EXAMPLE)
        require_text("modality", modality, "image")
        return self._decisions(dataset_version, modality)

    def explain(self, identifier: str, dataset_version: str | None = None) -> dict[str, Any]:
        """Return the lineage of a feature, segment or sample. See `mm_resources.retrieval.explain`."""
        require_text("identifier", identifier, "id:FEATURE_ID")
        if dataset_version is not None:
            require_text("dataset_version", dataset_version, _EXAMPLE)
        return self._explain(identifier, dataset_version)

    @abstractmethod
    def _search(self, call: SearchCall) -> list[pa.Table]:
        """Return the hits of each request."""

    @abstractmethod
    def _datasets(self) -> list[dict[str, Any]]: ...

    @abstractmethod
    def _training_set(self, call: TrainingCall) -> Rows: ...

    @abstractmethod
    def _training_set_of(self, manifest: dict[str, Any], verify: bool) -> Rows: ...

    @abstractmethod
    def _find_manifest(self, digest: str) -> dict[str, Any]: ...

    @abstractmethod
    def _decisions(self, dataset_version: str, modality: str) -> pa.Table: ...

    @abstractmethod
    def _explain(self, identifier: str, dataset_version: str | None) -> dict[str, Any]: ...


def _check_request(request: SearchRequest, where: str) -> None:
    try:
        request.check()
    except UserError as error:
        raise UserError(f"{where}{error}") from None


def _number_hits(found: list[pa.Table]) -> pa.Table:
    """Return the hits of several queries as one table, with the numbers of the queries."""
    return pa.concat_tables(
        table.append_column("query", pa.array(np.full(table.num_rows, number, np.int64)))
        for number, table in enumerate(found)
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
