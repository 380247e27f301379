"""The schema metadata of a feature table, and the function by which plain LanceDB embeds a query.

A client that knows nothing of the registry finds there which embedder made the vectors, its fingerprint and
space, the metric, and an embedding function for ``table.search("words")``. LanceDB looks functions up in a
registry of its process, so that a client first calls `register_embedding_function`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from mm_embed_kernels.embedders import Embedder, maker_of
from mm_embed_kernels.errors import UserError

# LanceDB names an unknown function in its error: it is what the client has to call.
FUNCTION = "mm_resources.register_embedding_function"
# LanceDB's key for the functions of a table.
_FUNCTIONS = "embedding_functions"


def metadata_of(embedder: Embedder) -> dict[str, str]:
    """Return the metadata of the tables of an embedder; the same for the same fingerprint and name."""
    identity = {
        "embedder": embedder.name,
        "fingerprint": embedder.fingerprint,
        "space": embedder.space,
        "dimension": embedder.dimension,
    }
    metadata = {f"mm.{key}": str(value) for key, value in identity.items()}
    # Rows have unit norm: by inner product and by Euclidean distance the neighbours are the same.
    metadata["mm.metric"] = "cosine"
    if type(embedder).embed_text is not Embedder.embed_text:
        function = {"name": FUNCTION, "model": identity, "source_column": "text", "vector_column": "vector"}
        metadata[_FUNCTIONS] = json.dumps([function], sort_keys=True)
    return metadata


def stored_metadata(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Return the metadata of a table's schema as texts."""
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


def register_embedding_function() -> None:
    """Let LanceDB embed the queries of `table.search("words")` with the models of feature tables.

    Registers one function in LanceDB's registry of this process; a second call changes nothing. The model of
    a table is loaded at its first query, and has to be installed.
    """
    from lancedb.embeddings import EmbeddingFunction, get_registry

    registry = get_registry()
    try:
        registry.get(FUNCTION)
    except KeyError:
        pass
    else:
        return

    class QueryEmbedding(EmbeddingFunction):  # type: ignore[misc]  # lancedb is read as Any
        """Vectors of queries in the space of a feature table."""

        embedder: str
        fingerprint: str
        space: str
        dimension: int

        def ndims(self) -> int:
            return self.dimension

        def compute_query_embeddings(self, query: str, *_args: Any, **_kwargs: Any) -> list[Any]:
            if not query.strip():
                raise UserError("the query is empty")
            vectors = _open(self.embedder, self.fingerprint, self.space).embed_text([query])
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            if not (np.isfinite(lengths) & (lengths > 0)).all():
                raise UserError("the query has no direction for this model; use other words")
            # Of unit norm, as the rows are: distances then mean the same whatever the query.
            return list(vectors / lengths)

        def compute_source_embeddings(self, *_args: Any, **_kwargs: Any) -> list[Any]:
            raise UserError(
                "rows of a feature table come from `mm backfill`; they are not added by LanceDB, since no "
                "pin would name them"
            )

        def compute_query_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:
            # LanceDB would repeat a mistake of the user's seven times, and hide it in an error of its own.
            return self.compute_query_embeddings(*arguments, **options)

        def compute_source_embeddings_with_retry(self, *arguments: Any, **options: Any) -> list[Any]:
            return self.compute_source_embeddings(*arguments, **options)

    registry.register(FUNCTION)(QueryEmbedding)


@cache
def _open(name: str, fingerprint: str, space: str) -> Embedder:
    """Return an embedder that is loaded once per process.

    Raises:
        UserError: where the installed model has another space than the table's vectors.
    """
    made = maker_of(name, fingerprint)
    if made.space != space:
        raise UserError(
            f"the table's vectors are of {name} in the space {space}, and the installed model has the space "
            f"{made.space}; install the model that made them, or backfill the dataset again"
        )
    return made
