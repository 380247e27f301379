"""The check `sources_unchanged`: compare the sources of a frozen version with its listing."""

from __future__ import annotations

from collections.abc import Sequence

from mm_assets.cells.checks import Check
from mm_embed_kernels.spec.dataset_spec import DatasetSpec
from mm_embed_kernels.spec.source_spec import SourceSpec
from mm_resources.ingestion.source_drift import CHANGES, Drift
from mm_resources.registry.registry import Registry

UNCHANGED = "the sources are as they were listed"


def source_drifts(
    registry: Registry, spec: DatasetSpec, sources: Sequence[SourceSpec], check: bool = False
) -> list[Drift]:
    """Return the difference of each source from its frozen listing, by its last check.

    Args:
        check: list the sources now, which takes as long as their first listing did.
    """
    if check:
        return [registry.drifts.check(spec, source) for source in sources]
    return [registry.drifts.last_check(spec, source) or Drift(source.name) for source in sources]


def sources_unchanged(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> Check:
    """Return the check of a cell's sources, which does not block."""
    figures = {change: sum(getattr(drift, change) for drift in drifts) for change in CHANGES}
    line = describe_drift(registry, spec, drifts)
    return Check("sources_unchanged", not line, line or UNCHANGED, figures, blocking=False)


def describe_drift(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> str:
    """Describe the changes since the freeze, and the command for the next version; "" for none."""
    lines = [str(drift) for drift in drifts if str(drift)]
    advice = (
        f"; next: {follow_command(registry, spec)}"
        if any(drift.has_changed and not drift.problem for drift in drifts)
        else ""
    )
    return f"{'; '.join(lines)} since {spec.dataset_version} was frozen{advice}" if lines else ""


def drift_summary(registry: Registry, spec: DatasetSpec, drifts: Sequence[Drift]) -> str:
    """Describe the last check of a version's sources in one line, with its time."""
    checked_at = [drift.looked_at for drift in drifts if drift.looked_at]
    if checked_at:
        line = describe_drift(registry, spec, drifts) or UNCHANGED
        return f"as of {min(checked_at)[:19].replace('T', ' ')} UTC: {line}"
    if any(registry.listings.is_frozen(spec, source) for source in spec.sources):
        return f"sources not checked since they were listed; run: mm status {spec.dataset_version} --drift"
    return "the sources are not listed yet; the first backfill lists them"


def follow_command(registry: Registry, spec: DatasetSpec) -> str:
    """Return the command that registers the version after this one."""
    return f"mm register --from {spec.dataset_version} --as {registry.next_name(spec)}"
