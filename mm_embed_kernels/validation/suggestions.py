"""Which validation rule would have caught failed samples at the door: one bound of one column, found by exhaustion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql

# A cause that fewer samples share does not recur.
RECURS = 3
# More values than these are a list of samples, not a rule.
LISTED_VALUES = 20

# Best cut of a number: all at or below (above) one value are rejected. The next value beyond it bounds how far the
# threshold may be moved without rejecting any other sample.
_CUT = """
WITH counts AS (
  SELECT "{column}" AS value, count(*) FILTER (cause = {cause}) AS bad, count(*) FILTER (cause IS NULL) AS good
  FROM samples WHERE "{column}" IS NOT NULL AND NOT isnan("{column}"::DOUBLE) AND (cause IS NULL OR cause = {cause}) GROUP BY 1
), sums AS (
  SELECT value, lead(value) OVER w AS beyond, sum(bad) OVER w AS caught, sum(good) OVER w AS wrong FROM counts
  WINDOW w AS (ORDER BY value {order} ROWS UNBOUNDED PRECEDING)
)
SELECT value, beyond, caught::BIGINT AS caught, wrong::BIGINT AS wrong FROM sums
WHERE beyond IS NOT NULL AND caught > wrong ORDER BY caught - wrong DESC, wrong LIMIT 1
"""
_MEMBERS = """
SELECT value, bad, good FROM (
  SELECT "{column}" AS value, count(*) FILTER (cause = {cause}) AS bad, count(*) FILTER (cause IS NULL) AS good
  FROM samples WHERE "{column}" IS NOT NULL GROUP BY 1
) WHERE bad >= {recurs} AND bad > good ORDER BY bad - good DESC, value LIMIT {most}
"""


@dataclass(frozen=True)
class Suggestion:
    """One bound, in the spec's terms.

    Attributes:
        bound: ``min``, ``max`` or ``none_of``.
        limit: a number, or the values that are refused.
        caught: failed samples of the cause that it rejects.
        wrong: samples that did not fail and that it would reject.
    """

    column: str
    bound: str
    limit: Any
    caught: int
    wrong: int

    @property
    def gain(self) -> int:
        return self.caught - self.wrong


def suggest(
    samples: Callable[[list[str]], pa.RecordBatchReader],
    columns: Iterable[tuple[str, pa.DataType]],
    cause: str,
) -> list[Suggestion]:
    """The best bound of each column that rejects more samples of a cause than sound ones, best first.

    Args:
        samples: streams chosen columns of all samples, one of which is ``cause``: why it failed, or null where it did
            not; called once or twice for each column.
        columns: (name, type) of the candidates, those that are known first before the others: of equal bounds the first
            one wins.
        cause: whose samples are to be caught.
    """
    found: list[Suggestion] = []
    for column, kind in columns:
        read = [column, "cause"]
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            found += _cuts(lambda: samples(read), column, cause, pa.types.is_integer(kind))  # noqa: B023 - called at once
        else:
            found += _members(samples(read), column, cause)
    return sorted(found, key=lambda item: (-item.gain, item.wrong))


def _cuts(
    samples: Callable[[], pa.RecordBatchReader], column: str, cause: str, whole: bool
) -> list[Suggestion]:
    found = []
    for bound, order in (("min", "ASC"), ("max", "DESC")):
        statement = _CUT.format(column=column, cause=sql.literal(cause), order=order)
        for row in sql.fetch(statement, samples=samples()).to_pylist():
            limit = round_limit(row["value"], row["beyond"], whole)
            found.append(Suggestion(column, bound, limit, row["caught"], row["wrong"]))
    return found


def _members(samples: pa.RecordBatchReader, column: str, cause: str) -> list[Suggestion]:
    statement = _MEMBERS.format(column=column, cause=sql.literal(cause), recurs=RECURS, most=LISTED_VALUES)
    rows = sql.fetch(statement, samples=samples).to_pylist()
    if not rows:
        return []
    return [
        Suggestion(
            column,
            "none_of",
            [row["value"] for row in rows],
            sum(r["bad"] for r in rows),
            sum(r["good"] for r in rows),
        )
    ]


def round_limit(rejected: float, allowed: float, whole: bool) -> float:
    """The limit with the fewest digits between the last value that is rejected and the first that is allowed, near the former.

    What lies between them nobody has seen, so as little of it as a plain number allows is rejected.
    """
    up = allowed > rejected
    if whole and rejected == 0:
        return 1 if up else -1
    size = math.floor(math.log10(abs(rejected or allowed)))
    for digits in range(1, 17):
        step = max(10.0 ** (size - digits + 1), 1.0 if whole else 0.0)
        limit = float(
            f"{(math.floor(rejected / step) + 1 if up else math.ceil(rejected / step) - 1) * step:.15g}"
        )
        if rejected < limit <= allowed or allowed <= limit < rejected:
            return int(limit) if whole else limit
    return allowed
