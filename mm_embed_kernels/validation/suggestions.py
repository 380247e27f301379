"""Suggest validation rules that would have rejected failed samples: one bound of one column each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from mm_embed_kernels import sql

# A cause that fewer samples share is no pattern.
MIN_SAMPLES = 3
# A longer list of values would enumerate samples instead of stating a rule.
MAX_VALUES = 20

# Best cut of a number: all values up to (or from) one value are rejected. The next value beyond it limits how
# far the threshold may be moved without rejecting another sample.
_CUT = """
WITH counts AS (
  SELECT "{column}" AS value,
         count(*) FILTER (cause = {cause}) AS bad, count(*) FILTER (cause IS NULL) AS good
  FROM samples
  WHERE "{column}" IS NOT NULL AND NOT isnan("{column}"::DOUBLE) AND (cause IS NULL OR cause = {cause})
  GROUP BY 1
), sums AS (
  SELECT value, lead(value) OVER w AS beyond, sum(bad) OVER w AS caught, sum(good) OVER w AS wrong
  FROM counts WINDOW w AS (ORDER BY value {order} ROWS UNBOUNDED PRECEDING)
)
SELECT value, beyond, caught::BIGINT AS caught, wrong::BIGINT AS wrong FROM sums
WHERE beyond IS NOT NULL AND caught > wrong ORDER BY caught - wrong DESC, wrong LIMIT 1
"""
_MEMBERS = """
SELECT value, bad, good FROM (
  SELECT "{column}" AS value,
         count(*) FILTER (cause = {cause}) AS bad, count(*) FILTER (cause IS NULL) AS good
  FROM samples WHERE "{column}" IS NOT NULL GROUP BY 1
) WHERE bad >= {least} AND bad > good ORDER BY bad - good DESC, value LIMIT {most}
"""


@dataclass(frozen=True)
class Suggestion:
    """One bound, in the terms of the spec.

    Attributes:
        column: column of the listing or the probe.
        bound: ``min``, ``max`` or ``none_of``.
        limit: a number, or the rejected values.
        caught: failed samples of the cause that it rejects.
        wrong: samples without a failure that it would reject.
    """

    column: str
    bound: str
    limit: Any
    caught: int
    wrong: int

    @property
    def gain(self) -> int:
        """Failed samples that it rejects less those that it would reject wrongly."""
        return self.caught - self.wrong


def suggest(
    samples: Callable[[list[str]], pa.RecordBatchReader],
    columns: Iterable[tuple[str, pa.DataType]],
    cause: str,
) -> list[Suggestion]:
    """Return the best bounds that reject more samples of a cause than valid ones, best first.

    Args:
        samples: streams chosen columns of all samples, one of which is ``cause``: why a sample failed, or
            null where it did not; called once or twice per column.
        columns: (name, type) of the candidates, columns of the listing before the others: of equal bounds the
            first one wins.
        cause: the cause whose samples are to be rejected.
    """
    suggestions: list[Suggestion] = []
    for column, kind in columns:
        read = [column, "cause"]
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            suggestions += _cuts(partial(samples, read), column, cause, pa.types.is_integer(kind))
        else:
            suggestions += _members(samples(read), column, cause)
    return sorted(suggestions, key=lambda item: (-item.gain, item.wrong))


def _cuts(
    samples: Callable[[], pa.RecordBatchReader], column: str, cause: str, whole: bool
) -> list[Suggestion]:
    """Return the best lower and the best upper bound of a number, where they reject enough."""
    cuts = []
    for bound, order in (("min", "ASC"), ("max", "DESC")):
        statement = _CUT.format(column=column, cause=sql.literal(cause), order=order)
        for row in sql.fetch(statement, samples=samples()).to_pylist():
            limit = round_limit(row["value"], row["beyond"], whole)
            cuts.append(Suggestion(column, bound, limit, row["caught"], row["wrong"]))
    return cuts


def _members(samples: pa.RecordBatchReader, column: str, cause: str) -> list[Suggestion]:
    """Return the values of a text or flag that mostly occur in samples of the cause, as one bound."""
    statement = _MEMBERS.format(column=column, cause=sql.literal(cause), least=MIN_SAMPLES, most=MAX_VALUES)
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
    """Return the limit with the fewest digits between two neighbouring values, near the rejected one.

    No sample lies between the two, so as little of their range as a round number permits is rejected.

    Args:
        rejected: the last value to reject.
        allowed: the first value to allow, above or below `rejected`.
        whole: whether the column has integers.
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
