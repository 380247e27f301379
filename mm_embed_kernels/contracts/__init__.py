"""The contracts at every boundary. See `stages` for the schemas and `contract` for the mechanism."""

from mm_embed_kernels.contracts.contract import Contract, ContractError, field
from mm_embed_kernels.contracts.stages import (
    CONTENT_BLOBS,
    CURATED_SAMPLES,
    DATASET_REGISTRY,
    EMBEDDINGS,
    FAILURES,
    FEATURE,
    FEATURE_TABLE,
    FEATURE_VIEWS,
    LEDGER,
    LINEAGE_REPORT,
    NORMALIZED_FEATURES,
    RAW_ASSETS,
    SAMPLE_METADATA,
    SEGMENTS,
    VALIDATED_SAMPLES,
    feature_contract,
)

__all__ = [
    "CONTENT_BLOBS",
    "CURATED_SAMPLES",
    "DATASET_REGISTRY",
    "EMBEDDINGS",
    "FAILURES",
    "FEATURE",
    "FEATURE_TABLE",
    "FEATURE_VIEWS",
    "LEDGER",
    "LINEAGE_REPORT",
    "NORMALIZED_FEATURES",
    "RAW_ASSETS",
    "SAMPLE_METADATA",
    "SEGMENTS",
    "VALIDATED_SAMPLES",
    "Contract",
    "ContractError",
    "feature_contract",
    "field",
]
