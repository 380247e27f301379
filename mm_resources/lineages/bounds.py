"""Bounds of a lineage: when its tail is joined, and when a version is written whole instead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lance


@dataclass(frozen=True)
class Bounds:
    """The bounds, each with its reason.

    Attributes:
        difference: most rows that go and come, as a share of the version's. A third of the rows written,
            a third of the base dead and a third of each index apart is about what a whole write costs, and
            that is paid once, while readers pay for the difference in each query.
        dead: most deleted rows in the fragments of a version, as a share of its rows. They are read and
            skipped by each scan and each probe of an index.
        apart: most rows outside of the largest segment of an index, as a share of the version's. Lists and
            graphs are trained on that segment; each other one is searched besides.
        tail: most small fragments behind the base. A scan costs no more at ten and nearly four times as
            much at fifty, a search in an HNSW index 1.6 times and six times (20,000 rows, 1% a version).
        growth: a fragment is joined with the newer ones if it has at most this many times their rows, so that
            a row is written again only when its fragment grows by half.
    """

    difference: float = 0.3
    dead: float = 1 / 3
    apart: float = 1 / 3
    tail: int = 8
    growth: int = 2


BOUNDS = Bounds()


def live_rows(fragment: lance.LanceFragment) -> int:
    """Return the rows of a fragment that are not deleted, by its metadata."""
    deleted = fragment.metadata.deletion_file
    return int(fragment.physical_rows) - (int(deleted.num_deleted_rows or 0) if deleted is not None else 0)


def tail_of(base: lance.LanceDataset, coming: int, bounds: Bounds = BOUNDS) -> list[int]:
    """Return the ids of the newest fragments that are to be joined with the rows that come; [] for few.

    Args:
        coming: number of rows that come.
    """
    fragments = sorted(base.get_fragments(), key=lambda each: -int(each.fragment_id))
    joined: list[int] = []
    rows = coming
    # The oldest fragment is the base, however small.
    for fragment in fragments[:-1]:
        if live_rows(fragment) > bounds.growth * rows:
            break
        joined.append(int(fragment.fragment_id))
        rows += live_rows(fragment)
    return joined if len(joined) + 1 > bounds.tail else []


def reason_to_rewrite(
    base: lance.LanceDataset, rows: int, going: int, coming: int, bounds: Bounds = BOUNDS
) -> str:
    """Return why a version is to be written whole; "" where its difference from the base is enough.

    Args:
        rows: rows of the version.
        going, coming: rows of the base that go, and rows that come.
    """
    if going + coming > bounds.difference * max(rows, 1):
        return f"{going + coming:,} of {rows:,} rows differ"
    fragments = base.get_fragments()
    dead = going + sum(int(each.physical_rows) - live_rows(each) for each in fragments)
    if dead > bounds.dead * rows:
        return f"{dead:,} rows are deleted beside {rows:,}"
    live = {int(each.fragment_id): live_rows(each) for each in fragments}
    for index in base.describe_indices():
        largest = max(
            (sum(live.get(number, 0) for number in segment.fragment_ids) for segment in index.segments),
            default=0,
        )
        if rows - largest > bounds.apart * rows:
            return (
                f"index {index.name} has {rows - largest:,} of {rows:,} rows apart from its largest segment"
            )
    return ""
