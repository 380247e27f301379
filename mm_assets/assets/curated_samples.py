"""Curation: a decision for every sample, before anything is embedded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mm_assets.cells.cell_asset import cell_asset
from mm_assets.cells.cell_run import CellRun
from mm_assets.cells.checks import Check
from mm_assets.cells.plots import histograms
from mm_assets.cells.stage_output import StageOutput
from mm_assets.curation.contamination import compared_versions, connect_comparisons
from mm_assets.curation.equal_samples import equal_groups
from mm_assets.curation.inherited_splits import has_links, inherit_splits, parent_versions
from mm_assets.curation.parent_vectors import connect_vectors, vector_inputs
from mm_embed_kernels import sql
from mm_embed_kernels.curation.decisions import curate, profile_digest
from mm_embed_kernels.rules import Rule, rule_set
from mm_resources.storage.spool import TableSpool

PLOTTED = 20_000
_GROUPS = pa.schema([(name, pa.string()) for name in ("split_group", "duplicate_group", "split")])
_STRADDLING = """
SELECT count(*) AS n FROM (
  SELECT name FROM (SELECT unnest([split_group, duplicate_group]) AS name, split FROM groups)
  WHERE name IS NOT NULL GROUP BY 1 HAVING count(DISTINCT split) > 1
)
"""


def _rules(run: CellRun) -> list[Rule]:
    return rule_set(run.cell.modality, run.spec.curation.rules)


def _inputs(run: CellRun) -> dict[str, Any]:
    rules = _rules(run)
    others = compared_versions(run.catalog, run.cell, rules)
    return {
        "profile": profile_digest(rules, run.spec.splits),
        "parent": parent_versions(run),
        **({"others": others} if others else {}),
        **vector_inputs(run.catalog, run.cell, rules),
        # How linked samples are placed: by the content of equal ones since 2.
        **({"links": 2} if has_links(run.spec) else {}),
    }


@cell_asset(
    group="2_curate",
    deps=["validated_samples"],
    kinds=["lance"],
    checks=[("splits_hold", True)],
    extra_inputs=_inputs,
)
def curated_samples(run: CellRun) -> StageOutput:
    """A decision per sample: kept or dropped, with rule, value, threshold and reason.

    All rules judge every sample and are recorded; a rule's action says whether it drops or flags.
    """
    counts: Counter[str] = Counter()
    groups = TableSpool(_GROUPS)
    placed, known = (spool.reader() for spool in inherit_splits(run))
    read, rules = partial(run.read, "validated_samples"), _rules(run)
    connect_comparisons(run.catalog, run.cell, rules)
    connect_vectors(run.catalog, run.cell, rules)
    equal = equal_groups(run).reader() if has_links(run.spec) else None
    decisions = curate(read, rules, run.cell.dataset, run.spec.splits, placed, known, equal)
    written = run.write(_count_decisions(decisions, counts, groups))
    return StageOutput(
        written, counts, [_check_splits(groups)], plots={"signals": partial(_signal_plot, run)}
    )


def _signal_plot(run: CellRun) -> bytes | None:
    """Draw histograms of the rules' signals, with their thresholds, over a sample of the cell."""
    columns = sorted(
        {column for rule in _rules(run) for column in rule.columns if column not in rule.compared}
    )
    sampled = sql.fetch(
        f"SELECT * FROM samples USING SAMPLE {PLOTTED} ROWS", samples=run.read("validated_samples", columns)
    )
    return histograms(sampled, _rules(run))


def _count_decisions(
    decisions: Iterator[pa.Table], counts: Counter[str], groups: TableSpool
) -> Iterator[pa.Table]:
    counts.update({"kept": 0, "dropped": 0})
    for table in decisions:
        counts.update("kept" if kept else "dropped" for kept in table["kept"].to_pylist())
        counts.update(f"dropped by {rule}" for rule in table["rule"].drop_null().to_pylist())
        counts.update(f"flagged by {rule}" for rule in _flag_rules(table["rules"]))
        groups.add(table.filter(table["kept"]).select(_GROUPS.names))
        yield table


def _flag_rules(decisions: pa.ChunkedArray) -> list[str]:
    """Return the rule of each decision that flags a sample."""
    each = pa.Table.from_struct_array(pc.list_flatten(decisions)).select(["rule", "passed", "action"])
    found: list[str] = each.filter(~pc.field("passed") & (pc.field("action") == "flag"))["rule"].to_pylist()
    return found


def _check_splits(groups: TableSpool) -> Check:
    """Check that no split group and no group of duplicates is in two splits."""
    straddling = sql.fetch(_STRADDLING, groups=groups.reader())["n"][0].as_py()
    return Check(
        "splits_hold",
        straddling == 0,
        f"{straddling:,} groups stand in more than one split" if straddling else "each group has one split",
        {"straddling": straddling},
    )
