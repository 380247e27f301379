"""Contracts: Arrow schemas between stages, and the list of stages. Imports no other room."""

from mm_embed_kernels.contracts.contract import Contract, ContractError, field
from mm_embed_kernels.contracts.features import (
    EMBEDDINGS,
    FEATURE_TABLE,
    FEATURE_VIEWS,
    FEATURES,
    NORMALIZED_FEATURES,
    SEGMENTS,
    feature_contract,
)
from mm_embed_kernels.contracts.records import FAILURES, LEDGER, LINEAGE_REPORT, MARKS, PICKS
from mm_embed_kernels.contracts.samples import (
    CONTENT_BLOBS,
    CURATED_SAMPLES,
    DATASET_REGISTRY,
    RAW_ASSETS,
    SAMPLE_METADATA,
    VALIDATED_SAMPLES,
)

__all__ = [
    "CONTENT_BLOBS",
    "CURATED_SAMPLES",
    "DATASET_REGISTRY",
    "EMBEDDINGS",
    "FAILURES",
    "FEATURES",
    "FEATURE_TABLE",
    "FEATURE_VIEWS",
    "LEDGER",
    "LINEAGE_REPORT",
    "MARKS",
    "NORMALIZED_FEATURES",
    "PICKS",
    "RAW_ASSETS",
    "SAMPLE_METADATA",
    "SEGMENTS",
    "VALIDATED_SAMPLES",
    "Contract",
    "ContractError",
    "feature_contract",
    "field",
]
