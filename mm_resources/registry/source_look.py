"""A look at the sources of a spec before it is frozen: whether each lists anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec, escape_glob
from mm_embed_kernels.urls import strip_secrets
from mm_resources.ingestion.listings import describe_cause
from mm_resources.registry.registry import Registry
from mm_resources.registry.spec_check import check_spec
from mm_resources.sources import open_source
from mm_resources.sources.archives import Archives
from mm_resources.sources.globs import glob_root
from mm_resources.sources.unlisted_files import unlisted_files


def look_at_sources(registry: Registry, spec: DatasetSpec) -> Iterator[str]:
    """Check that each source of a spec lists something now; yield a note for one that does not answer.

    Only the first sample of each is looked for; with a side table, as many as its rows may belong to. A
    source that may be empty, and one of sound tracks, whose videos are looked for, is left out.

    Raises:
        UserError: for a mistake in the spec, a source that cannot be listed, or that lists nothing.
    """
    check_spec(spec, registry.spec)
    for source in spec.sources:
        if source.allow_empty or source.track_of is not None:
            continue
        if source.members is not None and not isinstance(open_source(source, {}), Archives):
            raise UserError(
                f"source {source.name}: `members` chooses among the members of archives, but "
                f"{strip_secrets(source.uri)} does not end in .tar, .zip ...; name each ending, "
                "such as shards/*.{tar,tar.gz}"
            )
        try:
            first, has_rows = registry.listings.look(spec, source)
        except (UserError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
            table = source.table.uri if source.table else ""
            hint = _hint(source.uri) or _hint(escape_glob(table))
            raise UserError(
                f"source {source.name} cannot be listed: {describe_cause(error)}{hint}"
            ) from error
        except Exception as error:  # noqa: BLE001 - of any client's library; its service may answer later
            yield f"source {source.name} does not answer now: {describe_cause(error)}; its backfill lists it"
            continue
        if first is None:
            raise UserError(
                f"source {source.name} lists nothing at {strip_secrets(source.uri)}{_hint(source.uri)}; "
                "mend the path or set allow_empty: true"
            )
        if source.table is not None and has_rows is False:
            yield (
                f"source {source.name}: no row of its side table {strip_secrets(source.table.uri)} names a "
                f"file, such as {first.key!r}, in the column {source.table.key!r}"
            )
    for modality, files in unlisted_files(spec).items():
        more = ", ..." if files.count > len(files.names) else ""
        yield (
            f"{files.count:,} files look like {modality} samples and match no source: "
            f"{', '.join(files.names)}{more}; widen a glob, or name them in `exclude`"
        )


def _hint(uri: str) -> str:
    """Return the nearest path that exists, of a local path that does not; "" for any other."""
    if "://" in uri or not uri:
        return ""
    root, _ = glob_root(uri)
    nearest = os.path.abspath(root)
    if os.path.exists(nearest):
        return ""
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest)
    return f"; the nearest path that exists is {nearest}"
