"""Rule `exact_duplicate`: samples with the same bytes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_embed_kernels import sql
from mm_embed_kernels.rules.base import Action
from mm_embed_kernels.rules.duplicates import DuplicateRule
from mm_embed_kernels.sql import CellReader

# The keeper of each duplicated content is its first sample by key, so that it does not depend on the listing
# order.
_DUPLICATES = """
WITH copies AS (
  SELECT sample_id, count(*) OVER (PARTITION BY content_hash) AS size,
         first_value(sample_id) OVER (PARTITION BY content_hash ORDER BY key, sample_id) AS keeper
  FROM samples
)
SELECT sample_id, 'exact-' || keeper AS "group", keeper, 1.0::DOUBLE AS score,
       CASE WHEN sample_id <> keeper
         THEN [{'of': keeper, 'kind': 'exact', 'score': 1.0::DOUBLE, 'span': NULL::VARCHAR}] END AS duplicates
FROM copies WHERE size > 1 ORDER BY sample_id
"""


@dataclass
class ExactDuplicate(DuplicateRule):
    """A sample with the same bytes as another one of the cell; the first by key is kept."""

    name = "exact_duplicate"
    columns = ("sample_id", "content_hash", "key")
    reason = "has the same bytes as another sample"
    cost = 1

    action: Action = "drop"

    @property
    def threshold(self) -> str:
        return "same content_hash"

    def find(self, read: CellReader, folder: Path) -> Path:
        return sql.save(_DUPLICATES, folder / "duplicates.parquet", samples=read(list(self.columns)))

    def value(self, row: dict[str, Any]) -> Any:
        return row["keeper"]
