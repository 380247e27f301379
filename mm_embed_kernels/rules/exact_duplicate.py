from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm_embed_kernels import sql
from mm_embed_kernels.rules.base import Action
from mm_embed_kernels.rules.duplicates import DuplicateRule
from mm_embed_kernels.sql import CellReader

# Per duplicated content: the member that is kept is the first by key, so that it does not depend on listing order.
_FOUND = """
WITH copies AS (
  SELECT sample_id, count(*) OVER (PARTITION BY content_hash) AS size,
         first_value(sample_id) OVER (PARTITION BY content_hash ORDER BY key, sample_id) AS keeper
  FROM samples
)
SELECT sample_id, 'exact-' || keeper AS "group", keeper, 1.0::DOUBLE AS score,
       CASE WHEN sample_id <> keeper THEN [{'of': keeper, 'kind': 'exact', 'score': 1.0::DOUBLE, 'span': NULL::VARCHAR}] END AS duplicates
FROM copies WHERE size > 1 ORDER BY sample_id
"""


@dataclass
class ExactDuplicate(DuplicateRule):
    """The same bytes as another sample of the cell; the first by key is kept."""

    name = "exact_duplicate"
    columns = ("sample_id", "content_hash", "key")
    reason = "has the same bytes as another sample"
    cost = 1

    action: Action = "drop"

    @property
    def threshold(self) -> str:
        return "same content_hash"

    def find(self, read: CellReader, folder: Path) -> Path:
        return sql.save(_FOUND, folder / "found.parquet", samples=read(list(self.columns)))

    def value(self, row: dict[str, Any]) -> Any:
        return row["keeper"]
