"""What people are told when the sources of a frozen version have moved on."""

from __future__ import annotations

from collections.abc import Sequence

from mm_assets.cells.checks import Check
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.ingestion.source_drift import CHANGES, Drift
from mm_resources.registry.registry import Registry


def sources_of(spec: DatasetSpec, modality: str) -> list[SourceSpec]:
    """The sources that may hold samples of a modality."""
    return [source for source in spec.sources if source.modality in (modality, "auto")]


def known_drifts(
    registry: Registry, spec: DatasetSpec, sources: Sequence[SourceSpec], look: bool = False
) -> list[Drift]:
    """How each source differs from what was frozen of it, as it is now or as the last look found it.

    Args:
        look: list the sources now, which takes as long as listing them does.
    """
    if look:
        return [registry.drifts.look(spec, source) for source in sources]
    return [registry.drifts.last(spec, source) or Drift(source.name) for source in sources]


def sources_unchanged(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> Check:
    """The check of a cell that does not block: whether its sources are as they were frozen."""
    figures = {change: sum(getattr(drift, change) for drift in drifts) for change in CHANGES}
    told = moved_on(registry, spec, drifts)
    return Check(
        "sources_unchanged", not told, told or "the sources are as they were listed", figures, blocking=False
    )


def moved_on(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> str:
    """What has happened to the sources since they were frozen, and the command that follows them; "" for nothing."""
    lines = [str(drift) for drift in drifts if str(drift)]
    advice = (
        f"; next: {follow_command(registry, spec)}"
        if any(drift.moved_on and not drift.problem for drift in drifts)
        else ""
    )
    return f"{'; '.join(lines)} since {spec.dataset_version} was frozen{advice}" if lines else ""


def summary(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> str:
    """What is known of a version's sources, and since when, in one line."""
    looked = [drift.looked_at for drift in drifts if drift.looked_at]
    if looked:
        told = moved_on(registry, spec, drifts) or "the sources are as they were listed"
        return f"as of {min(looked)[:19].replace('T', ' ')} UTC: {told}"
    if any(registry.listings.is_frozen(spec, source) for source in spec.sources):
        return f"the sources have not been looked at since they were listed; to do so: mm status {spec.dataset_version} --drift"
    return "the sources are not listed yet; the first backfill lists them"


def follow_command(registry: Registry, spec: DatasetSpec) -> str:
    return f"mm register --from {spec.dataset_version} --as {registry.next_name(spec)}"
