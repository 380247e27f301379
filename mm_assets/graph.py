"""The twelve assets, in the order of the graph."""

from __future__ import annotations

from mm_assets.assets import (
    content_blobs,
    curated_samples,
    dataset_registry,
    embeddings,
    feature_table,
    feature_views,
    lineage_report,
    normalized_features,
    raw_assets,
    sample_metadata,
    segments,
    validated_samples,
)

STAGE_ASSETS = [
    dataset_registry.dataset_registry,
    raw_assets.raw_assets,
    content_blobs.content_blobs,
    sample_metadata.sample_metadata,
    validated_samples.validated_samples,
    curated_samples.curated_samples,
    segments.segments,
    embeddings.embeddings,
    normalized_features.normalized_features,
    feature_table.feature_table,
    feature_views.feature_views,
    lineage_report.lineage_report,
]
