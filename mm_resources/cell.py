"""`Cell`: one dataset version of one modality."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """One dataset version of one modality: the subject of a Dagster partition."""

    dataset: str
    version: str
    modality: str

    @property
    def dataset_version(self) -> str:
        return f"{self.dataset}@{self.version}"

    @property
    def partition_key(self) -> str:
        return f"{self.dataset_version}|{self.modality}"

    @property
    def path(self) -> str:
        return f"{self.dataset}/{self.version}/{self.modality}"
