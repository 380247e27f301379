"""Encoding of queries: a text, a medium or a vector as a vector in the space of a table."""

from __future__ import annotations

import os
from mimetypes import MimeTypes
from pathlib import Path
from typing import Any

import numpy as np

from mm_embed_kernels.embedders import Embedder, create, embedders, maker_of
from mm_embed_kernels.errors import SampleError, UserError
from mm_embed_kernels.extras import MissingPackage, explain_missing
from mm_embed_kernels.kernels.embed import embed_each
from mm_embed_kernels.media.tracks import media_type
from mm_embed_kernels.modalities import Media, modalities, modality_of
from mm_resources.registry.pins import PinnedTable
from mm_resources.retrieval.query_media import read_inputs, read_segments


class Words(str):
    """A text that is never taken for the path of a file, whatever it looks like: one of a stranger."""


Query = str | bytes | Path | list[float] | np.ndarray[Any, Any]
# Beginnings and endings of paths.
_PATHS, _MEDIA, _TEXTS = ("/", "./", "../", "~/"), ("image", "audio", "video"), (".txt", ".md", ".pdf")


class QueryEncoder:
    """Encodes queries as vectors; caches the embedders that it has loaded."""

    def __init__(self) -> None:
        self._embedders: dict[str, Embedder] = {}

    def embedder(self, pinned: PinnedTable) -> Embedder:
        """Return the embedder that made a table.

        Raises:
            UserError: when the installed weights are not those of the table.
        """
        key = f"{pinned.embedder} {pinned.fingerprint}"
        if key not in self._embedders:
            made = maker_of(pinned.embedder, pinned.fingerprint)
            if made.space != pinned.space:
                raise UserError(
                    f"table {pinned.table} uses space {pinned.space}, "
                    f"but the installed {pinned.embedder} makes {made.space}; "
                    "install the weights that made it, or query by id"
                )
            self._embedders[key] = made
        return self._embedders[key]

    def vector(self, query: Query, pinned: PinnedTable, spaces: str) -> np.ndarray[Any, Any]:
        """Encode a query, except an id, in the space of a table.

        Args:
            query: a text, a path or bytes of a medium, or a vector.
            pinned: the table to search.
            spaces: the spaces of all published tables, for the error message.

        Returns:
            The vector, float32 [dimension].

        Raises:
            UserError: when the query cannot be encoded in the space; lists `spaces`.
        """
        if isinstance(query, (np.ndarray, list)):
            vector = _numbers(query)
            if len(vector) != pinned.dimension:
                raise UserError(
                    f"the query has {len(vector)} dimensions, the table {pinned.dimension}; "
                    f"available: {spaces}"
                )
            return vector
        if isinstance(query, Words) or (isinstance(query, str) and not os.path.isfile(query)):
            vector = self._text_vector(query, pinned, spaces)
        else:
            with explain_missing("a query by a file"):
                vector = self._media_vector(
                    query if isinstance(query, bytes) else Path(query), pinned, spaces
                )
        return _require_direction(vector)

    def _text_vector(self, text: str, pinned: PinnedTable, spaces: str) -> np.ndarray[Any, Any]:
        if not text.strip():
            raise UserError("the query is empty")
        try:
            return np.asarray(self._embed_text(self.embedder(pinned), text))
        except MissingPackage:
            raise
        except UserError as error:
            raise UserError(f"{error}; available: {spaces}") from None

    def _media_vector(self, data: Media, pinned: PinnedTable, spaces: str) -> np.ndarray[Any, Any]:
        """Return the mean vector of a medium's segments; of a long medium, of some that are spread evenly."""
        # In this process: signatures are compared and tables of bounded size searched, nothing is decoded.
        mime = media_type(data)
        modality = modality_of(mime)
        if modality is None:
            raise UserError(f"the query is {mime}, which no modality reads")
        embedder = self._media_embedder(modality, pinned, spaces)
        try:
            data, segments = read_segments(data, modalities()[modality])
            inputs, failures = read_inputs(data, segments, embedder)
            vectors, refused = self._embed_inputs(embedder, inputs)
        except SampleError as error:
            raise UserError(f"the query cannot be read: {error}") from error
        if not vectors:
            cause = "".join(f": {error}" for error in [*failures, *refused][:1])
            raise UserError(f"the query contains no {modality} segment to embed{cause}; use another file")
        return np.asarray(np.mean(vectors, axis=0))

    def _embed_text(self, embedder: Embedder, text: str) -> np.ndarray[Any, Any]:
        """Return the vector of a text, float32 [dimension]; a service computes it in another process."""
        return np.asarray(embedder.embed_text([text])[0])

    def _embed_inputs(
        self, embedder: Embedder, inputs: list[Any]
    ) -> tuple[list[np.ndarray[Any, Any]], list[SampleError]]:
        """Return unit vectors of a model's inputs, and the errors of those that have none."""
        return vectors_of_inputs(embedder, inputs)

    def _media_embedder(self, modality: str, pinned: PinnedTable, spaces: str) -> Embedder:
        """Return an embedder that reads `modality` and makes vectors in the table's space."""
        own = self.embedder(pinned)
        if own.modality == modality:
            return own
        for name, kind in embedders().items():
            if kind.modality == modality and kind.takes_model == bool(own.model):
                whole = f"{name}:{own.model}" if own.model else name
                candidate = self._embedders.setdefault(whole, create(whole))
                if _shares_space(candidate, pinned):
                    return candidate
        raise UserError(
            f"no embedder encodes {modality} into the space {pinned.space}; "
            f"query it with text, {own.modality} or an id; available: {spaces}"
        )


def _is_path(query: str) -> bool:
    """Return whether a text is the path of a medium rather than words: by its ending, or where it begins."""
    if "\n" in query or query.startswith("id:") or "://" in query:
        return False
    if query.startswith(_PATHS) and " " not in query:
        return True
    mime, _ = MimeTypes(filenames=()).guess_type(query)
    return mime is not None and (mime.split("/")[0] in _MEDIA or query.lower().endswith(_TEXTS))


def check_query(query: object, mode: str = "vector") -> None:
    """Check a query without the tables: its type, whether a path exists and, of a vector, its numbers.

    Args:
        mode: mode of the search; in ``text``, a text is words, whatever it looks like.

    Raises:
        UserError: for another type, a path without a file, or numbers that are no direction.
    """
    if isinstance(query, Words):
        return
    if isinstance(query, np.ndarray | list):
        _numbers(query)
    elif isinstance(query, Path) and not query.is_file():
        raise UserError(f"the query {query} is no file; give the path of a medium, or a text")
    elif isinstance(query, str) and mode != "text" and _is_path(query) and not os.path.isfile(query):
        raise UserError(
            f"the query {query!r} looks like a path, and there is no such file"
            f"{'' if os.path.isabs(query) else f' in {os.getcwd()}'}; give the path of a medium, or search "
            "for the word by mode 'text'"
        )
    elif not isinstance(query, str | bytes | Path):
        raise UserError(
            f"the query is of type {type(query).__name__}; give a text, id:ID, a Path, bytes or a vector"
        )


def _numbers(query: np.ndarray[Any, Any] | list[float]) -> np.ndarray[Any, Any]:
    """Return a query that is a vector as float32 [dimension].

    Raises:
        UserError: when it is no vector of numbers, or as `_require_direction`.
    """
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(query).astype(np.float32, casting="same_kind")
    except (TypeError, ValueError):
        raise UserError("the query is no vector: it has something else than numbers in it") from None
    if vector.ndim == 2 and len(vector) == 1:
        vector = vector[0]
    if vector.ndim != 1:
        raise UserError(f"the query has the shape {list(vector.shape)}; give one vector, [dimension]")
    return _require_direction(vector)


def _require_direction(vector: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return a query vector that has a cosine with others: finite numbers, and one that is not 0.

    Raises:
        UserError: for any other.
    """
    if not np.isfinite(vector).all():
        raise UserError("the query has NaN or infinity in it (as float32); give finite numbers")
    if len(vector) and not vector.any():
        raise UserError("the query has only zeros, which are no direction; give another vector, or a text")
    return vector


def vectors_of_inputs(
    embedder: Embedder, inputs: list[Any]
) -> tuple[list[np.ndarray[Any, Any]], list[SampleError]]:
    """Return unit vectors of a model's inputs, and the errors of those that have none."""
    if not inputs:
        return [], []
    outcomes = embed_each(embedder, inputs if embedder.input_shape is None else np.stack(inputs))
    failures = [item for item in outcomes if isinstance(item, SampleError)]
    return [item for item in outcomes if not isinstance(item, SampleError)], failures


def _shares_space(candidate: Embedder, pinned: PinnedTable) -> bool:
    """Return whether an embedder's vectors are comparable with a table's."""
    try:
        return candidate.space == pinned.space
    except UserError:
        # An embedder of another kind may not be able to read the table's model.
        return False
