"""Secrets in the URIs of a spec: references in the stored spec, values only where a source is opened."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from mm_embed_kernels.spec.dataset_spec import DatasetSpec, escape_glob
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import REFERENCE
from mm_resources.sources import Source, open_source
from mm_resources.sources.files import Files
from mm_resources.sources.globs import glob_root
from mm_resources.storage.secret_table import SecretTable


def open_revealed(spec: DatasetSpec, source: SourceSpec, secrets: SecretTable) -> Source:
    """Return a source of a spec, opened with the values of its references.

    Raises:
        UserError: for a reference that cannot be resolved, and as `open_source`.
    """
    opened = open_source(reveal_source(source, secrets), dict(spec.schema_))
    if isinstance(opened, Files):
        opened.names_folders = not is_walked_before(spec, source)
    return opened


def is_walked_before(spec: DatasetSpec, source: SourceSpec) -> bool:
    """Return whether an earlier source of the spec walks the same folder as deep.

    What is wrong with the folder itself, such as a link in it that is not followed, is then a failure of that
    source, and not of the same folder once more in each modality.
    """
    names = [other.name for other in spec.sources]
    earlier = spec.sources[: names.index(source.name)] if source.name in names else []
    folder, depth = _walk_extent(source)
    return any(
        _walk_extent(other)[0] == folder and _walk_extent(other)[1] >= depth
        for other in earlier
        if _is_walk(other)
    )


def _is_walk(source: SourceSpec) -> bool:
    return source.record is None and source.track_of is None and not source.format and "://" not in source.uri


def _walk_extent(source: SourceSpec) -> tuple[str, float]:
    """Return the folder of a source's glob, and how many folders below it are entered."""
    root, glob = glob_root(source.uri)
    return root, inf if glob is None or "**" in glob else glob.count("/")


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
