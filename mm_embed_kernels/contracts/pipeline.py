"""TODO."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


# The graph's order; a stage may run only if no earlier one has a closed gate.
ORDER = (
    "dataset_registry", "raw_assets", "content_blobs", "sample_metadata", "validated_samples", "curated_samples",
    "segments", "embeddings", "normalized_features", "feature_table", "feature_views", "lineage_report",
)  # fmt: skip


STAGES = (
    "dataset_registry", "raw_assets", "content_blobs", "sample_metadata", "validated_samples", "curated_samples",
    "segments", "embeddings", "normalized_features", "feature_table", "feature_views",
)  # fmt: skip


# The stages that compute something of their own; what fails in the others follows from their inputs and the spec.
COMPUTING = ("raw_assets", "content_blobs", "sample_metadata", "segments", "embeddings")
