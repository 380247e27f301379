from __future__ import annotations

from dataclasses import dataclass, field

import pyarrow as pa

from mm_embed_kernels import relational
from mm_embed_kernels.contracts.stages import DUPLICATE
from mm_embed_kernels.rules.base import Action, CellReader, Evidence, Rule, Verdict

# Per duplicated content: the member that is kept is the first by key, so that it does not depend on listing order.
_GROUPS = """
SELECT content_hash, arg_min(sample_id, (key, sample_id)) AS keeper,
       arg_min(coalesce("group", entity_id), (key, sample_id)) AS split_group
FROM samples GROUP BY content_hash HAVING count(*) > 1
"""


@dataclass
class ExactDuplicate(Rule):
    """The same bytes as another sample of the cell; the first by key is kept."""

    name = "exact_duplicate"
    columns = ("sample_id", "content_hash", "key", "group", "entity_id")
    cost = 1

    action: Action = "drop"
    _keepers: dict[str, str] = field(default_factory=dict, init=False, repr=False)
    _split_groups: dict[str, str] = field(default_factory=dict, init=False, repr=False)

    @property
    def threshold(self) -> str:
        return "same content_hash"

    def prepare(self, read: CellReader) -> None:
        groups = relational.fetch(_GROUPS, samples=read(list(self.columns)))
        contents = groups["content_hash"].to_pylist()
        self._keepers = dict(zip(contents, groups["keeper"].to_pylist(), strict=True))
        self._split_groups = dict(zip(contents, groups["split_group"].to_pylist(), strict=True))

    def _keeper(self, batch: pa.Table) -> list[str | None]:
        return [self._keepers.get(content) for content in batch["content_hash"].to_pylist()]

    def judge(self, batch: pa.Table) -> Verdict:
        keepers = self._keeper(batch)
        samples = batch["sample_id"].to_pylist()
        passed = [keeper is None or keeper == sample for keeper, sample in zip(keepers, samples, strict=True)]
        return Verdict(pa.array(passed), pa.array(keepers, pa.string()), "has the same bytes as another sample")

    def evidence(self, batch: pa.Table) -> Evidence:
        keepers, samples = self._keeper(batch), batch["sample_id"].to_pylist()
        found = [
            [{"of": keeper, "kind": "exact", "score": 1.0, "span": None}] if keeper not in (None, sample) else []
            for keeper, sample in zip(keepers, samples, strict=True)
        ]
        groups = [None if keeper is None else f"exact-{keeper}" for keeper in keepers]
        follows = [self._split_groups.get(content) for content in batch["content_hash"].to_pylist()]
        return Evidence(pa.array(groups, pa.string()), pa.array(found, pa.list_(DUPLICATE)), pa.array(follows, pa.string()))
