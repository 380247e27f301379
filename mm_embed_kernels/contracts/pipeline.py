"""The stages of a cell: the one list of them, and the parts of it that differ in what may fail."""

from __future__ import annotations

# All assets, in the graph's order; a stage may run only if no earlier one has a closed gate.
STAGES = (
    "dataset_registry",
    "raw_assets",
    "content_blobs",
    "sample_metadata",
    "validated_samples",
    "curated_samples",
    "segments",
    "embeddings",
    "normalized_features",
    "feature_table",
    "feature_views",
    "lineage_report",
)

# Stages that record failure events: all but the report, which only counts what the others recorded.
FAILURE_STAGES = STAGES[:-1]

# Stages that call a kernel. A failure in any other one follows from its inputs and the spec, so that
# computing it again does not help.
COMPUTING_STAGES = ("raw_assets", "content_blobs", "sample_metadata", "segments", "embeddings")
