"""Secrets in the URIs of a spec: references in the stored spec, values only where a source is opened."""

from __future__ import annotations

from collections.abc import Callable

from mm_embed_kernels.spec.dataset_spec import DatasetSpec, escape_glob
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import REFERENCE
from mm_resources.sources import Source, open_source
from mm_resources.storage.secret_table import SecretTable


def open_revealed(spec: DatasetSpec, source: SourceSpec, secrets: SecretTable) -> Source:
    """Return a source of a spec, opened with the values of its references.

    Raises:
        UserError: for a reference that cannot be resolved, and as `open_source`.
    """
    return open_source(reveal_source(source, secrets), dict(spec.schema_))


def reveal_source(source: SourceSpec, secrets: SecretTable) -> SourceSpec:
    """Return the source with values in place of references; one without any unchanged.

    Raises:
        UserError: for a reference that cannot be resolved.
    """
    # A value is literal, whatever characters it has; the URI of a side table is no glob.
    return _map_uris(
        source,
        lambda uri: REFERENCE.sub(lambda found: escape_glob(secrets.resolve(found[0])), uri),
        secrets.resolve,
    )


def seal_spec(spec: DatasetSpec, secrets: SecretTable) -> DatasetSpec:
    """Return the spec with references in place of literal secrets, which `SecretTable.save` stores."""
    sources = [_map_uris(source, secrets.seal, secrets.seal) for source in spec.sources]
    return spec.model_copy(update={"sources": sources}) if sources != spec.sources else spec


def source_uris(source: SourceSpec) -> list[str]:
    """Return the URIs that a source names."""
    return [source.uri, *([source.table.uri] if source.table else [])]


def _map_uris(source: SourceSpec, uri: Callable[[str], str], table_uri: Callable[[str], str]) -> SourceSpec:
    update: dict[str, object] = {"uri": uri(source.uri)}
    if source.table is not None:
        update["table"] = source.table.model_copy(update={"uri": table_uri(source.table.uri)})
    if update["uri"] == source.uri and update.get("table") == source.table:
        return source
    return source.model_copy(update=update)
