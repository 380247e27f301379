"""The check `sources_matched`: rows of side tables, files and links that belong to nothing."""

from __future__ import annotations

from mm_assets.cells.checks import Check
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_resources.registry.registry import Registry
from mm_resources.sources import Unmatched
from mm_resources.sources.unlisted_files import unlisted_files

MATCHED = "every row of a side table has its file, every file its row, and every link its sample"


def sources_matched(registry: Registry, spec: DatasetSpec, modality: str) -> Check:
    """Return the check of a cell's frozen listing, which does not block.

    A link that several samples share makes them one entity, and is right without a sample of its name.
    """
    lines, figures = [], dict[str, int]()
    for source in spec.sources_of(modality):
        for what, found in registry.listings.frozen_unmatched(spec, source).items():
            figures[what] = figures.get(what, 0) + found.count
            if found.count:
                lines.append(f"source {source.name}: {_describe(what, found)}")
    dangling, links = registry.listings.dangling_links(spec, modality)
    if links:
        figures["links to no sample"] = dangling.count
        if dangling.count:
            lines.append(_describe(f"of {links:,} links name no sample", dangling))
    told = [*lines] or [MATCHED]
    # Told, and no failure: a spec may take a part of a folder.
    if (unlisted := unlisted_files(spec).get(modality)) is not None:
        figures["files of no source"] = unlisted.count
        told.append(_describe(f"files look like {modality} samples and match no source", unlisted))
    return Check("sources_matched", not lines, "; ".join(told), figures, blocking=False)


def _describe(what: str, found: Unmatched) -> str:
    more = ", ..." if found.count > len(found.names) else ""
    return f"{found.count:,} {what} ({', '.join(map(repr, found.names))}{more})"
