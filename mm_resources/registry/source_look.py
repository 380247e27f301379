"""A look at the sources of a spec before it is frozen: whether each lists anything."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mm_embed_kernels.errors import UserError
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_embed_kernels.urls import strip_secrets
from mm_resources.ingestion.listings import describe_cause
from mm_resources.registry.registry import Registry
from mm_resources.registry.spec_check import check_spec
from mm_resources.sources.globs import glob_root


def look_at_sources(registry: Registry, spec: DatasetSpec) -> Iterator[str]:
    """Check that each source of a spec lists something now; yield a note for one that does not answer.

    Only the first sample of each is looked for. A source that may be empty, and one of sound tracks, whose
    videos are looked for, is left out.

    Raises:
        UserError: for a mistake in the spec, a source that cannot be listed, or that lists nothing.
    """
    check_spec(spec, registry.spec)
    for source in spec.sources:
        if source.allow_empty or source.track_of is not None:
            continue
        try:
            first = registry.listings.first_sample(spec, source)
        except (UserError, FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UserError(
                f"source {source.name} cannot be listed: {describe_cause(error)}{_hint(source)}"
            ) from error
        except Exception as error:  # noqa: BLE001 - of any client's library; its service may answer later
            yield f"source {source.name} does not answer now: {describe_cause(error)}; its backfill lists it"
            continue
        if first is None:
            raise UserError(
                f"source {source.name} lists nothing at {strip_secrets(source.uri)}{_hint(source)}; "
                "mend the path or set allow_empty: true"
            )


def _hint(source: SourceSpec) -> str:
    """Return the nearest path that exists, of a local path that does not; "" for any other."""
    if "://" in source.uri:
        return ""
    root, _ = glob_root(source.uri)
    nearest = os.path.abspath(root)
    if os.path.exists(nearest):
        return ""
    while not os.path.exists(nearest):
        nearest = os.path.dirname(nearest)
    return f"; the nearest path that exists is {nearest}"
