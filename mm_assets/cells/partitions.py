"""Partitions: dataset version (dynamic) x modality (static, from the registry of modality modules)."""

from __future__ import annotations

import dagster as dg

from mm_embed_kernels.modalities import modalities
from mm_resources.cell import Cell

DATASET_VERSION = "dataset_version"
MODALITY = "modality"

dataset_versions = dg.DynamicPartitionsDefinition(name=DATASET_VERSION)
cells = dg.MultiPartitionsDefinition(
    {DATASET_VERSION: dataset_versions, MODALITY: dg.StaticPartitionsDefinition(list(modalities()))}
)


def partition_key(cell: Cell) -> dg.MultiPartitionKey:
    """Return the Dagster partition of a cell."""
    return dg.MultiPartitionKey({DATASET_VERSION: cell.dataset_version, MODALITY: cell.modality})
