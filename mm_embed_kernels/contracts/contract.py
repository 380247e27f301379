"""Contracts: an Arrow schema from which the pandera and Dagster schemas and the docs derive."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import pyarrow as pa

from mm_embed_kernels.contracts.arrow_checks import holds

if TYPE_CHECKING:
    import pandera.polars as pandera


class ContractError(TypeError):
    """A whole batch has the wrong shape: a bug in a kernel, never a property of a sample."""


class RowChecks(TypedDict, total=False):
    """Conditions on each value of a field.

    Attributes:
        ge: least value.
        le: greatest value.
        pattern: regular expression that a text matches.
        choices: texts of which a value is one; none contains ``|``.
    """

    ge: float | None
    le: float | None
    pattern: str | None
    choices: Iterable[str] | None


def field(
    name: str, kind: pa.DataType, description: str, *, required: bool = False, **checks: Unpack[RowChecks]
) -> pa.Field:
    """Return an Arrow field that carries its description and row checks in its metadata.

    Args:
        required: whether the field is not nullable.
        checks: see `RowChecks`.
    """
    choices = checks.get("choices")
    entries = {
        "description": description,
        "ge": checks.get("ge"),
        "le": checks.get("le"),
        "pattern": checks.get("pattern"),
        "choices": "|".join(choices) if choices else None,
    }
    metadata = {key: str(value) for key, value in entries.items() if value is not None}
    return pa.field(name, kind, nullable=not required, metadata=metadata)


@dataclass(frozen=True)
class Contract:
    """The rows that one stage hands to the next.

    Attributes:
        name: asset or boundary that it belongs to.
        schema: Arrow schema; field metadata holds description and row checks.
        key: column that identifies a row.
        digest: columns that enter the data version (never floats, never volatile ones such as a run id).
        stand_ins: (column, column that enters digests and comparisons in its place where it has a value).
        makers: columns that say who made a row, and when and where in which plan: a row that a version shares
            with an earlier one keeps those of the earlier one.
    """

    name: str
    schema: pa.Schema
    key: str
    digest: tuple[str, ...]
    stand_ins: tuple[tuple[str, str], ...] = ()
    makers: tuple[str, ...] = ()

    def extend(self, fields: Iterable[pa.Field], digest: Iterable[str] = ()) -> Contract:
        """Return the contract with a modality's signals or the user's columns added.

        Fields whose names it has already are left out.
        """
        added = [item for item in fields if item.name not in self.schema.names]
        return replace(self, schema=pa.schema([*self.schema, *added]), digest=(*self.digest, *digest))

    @property
    def bare(self) -> pa.Schema:
        """Schema without field metadata and with every field nullable: the form that is stored."""
        return pa.schema([pa.field(item.name, item.type) for item in self.schema])

    def cast(self, table: pa.Table) -> pa.Table:
        """Cast a table to `bare`; missing columns become null.

        Raises:
            ContractError: when a column is unknown or cannot be cast.
        """
        self._refuse_unknown(table)
        columns = []
        for item in self.bare:
            if item.name not in table.column_names:
                columns.append(pa.nulls(table.num_rows, item.type))
                continue
            column = table.column(item.name)
            try:
                columns.append(column if column.type == item.type else column.cast(item.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise ContractError(
                    f"{self.name}.{item.name}: {column.type} does not cast to {item.type}: {error}"
                ) from error
        return pa.table(columns, schema=self.bare)

    def _refuse_unknown(self, table: pa.Table) -> None:
        unknown = set(table.column_names) - set(self.schema.names)
        if unknown:
            raise ContractError(f"{self.name}: columns {sorted(unknown)} are not in the contract")

    def rows(self, rows: list[dict[str, Any]]) -> pa.Table:
        """Return rows given as dicts as a table of `bare`."""
        return pa.Table.from_pylist(rows, schema=self.bare)

    def pandera(self, columns: Iterable[str] | None = None) -> pandera.DataFrameSchema:
        """Return the pandera (polars) schema: dtypes and row checks of the flat columns.

        Nested columns are checked by the Arrow cast alone, since pandera has no dtype for them.

        Args:
            columns: those of the schema; all by default.
        """
        return _pandera(self, tuple(columns) if columns is not None else tuple(self.schema.names))

    def violations(self, table: pa.Table) -> dict[int, str]:
        """Return the rows that break the contract: row number -> one line naming the causes.

        Args:
            table: all columns of the contract, or some.

        Raises:
            ContractError: when a whole column has the wrong type or is not in the contract.
        """
        self._refuse_unknown(table)
        flat = [item.name for item in table.schema if not pa.types.is_nested(item.type)]
        if not flat or holds(table, self.schema):
            return {}
        import pandera.errors
        import polars as pl

        try:
            frame: Any = pl.from_arrow(table.select(flat))
            self.pandera(flat).validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as failed:
            causes: dict[int, list[str]] = {}
            for case in failed.failure_cases.iter_rows(named=True):
                if case["index"] is None:
                    raise ContractError(
                        f"{self.name}.{case['column']}: {case['check']} ({case['failure_case']})"
                    ) from failed
                causes.setdefault(case["index"], []).append(
                    f"{case['column']}={case['failure_case']} fails {case['check']}"
                )
            return {row: "; ".join(lines) for row, lines in sorted(causes.items())}
        return {}

    def split(
        self, table: pa.Table, columns: list[str] | None = None
    ) -> tuple[pa.Table, list[tuple[dict[str, Any], str]]]:
        """Split a table into the rows that fit and those that do not, each with one line naming the causes.

        Args:
            columns: those that are checked; all by default.
        """
        broken = self.violations(table if columns is None else table.select(columns))
        if not broken:
            return table, []
        bad = table.take(pa.array(list(broken), pa.int64())).to_pylist()
        good = pa.array([row for row in range(table.num_rows) if row not in broken], pa.int64())
        return table.take(good), list(zip(bad, broken.values(), strict=True))

    def describe(self) -> list[tuple[str, str, str]]:
        """Return (column, type, description) of every field, for the Dagster column schema and the docs."""
        return [
            (item.name, str(item.type), (item.metadata or {}).get(b"description", b"").decode())
            for item in self.schema
        ]


@lru_cache(maxsize=256)
def _pandera(contract: Contract, columns: tuple[str, ...]) -> pandera.DataFrameSchema:
    import pandera.polars as pandera
    import polars as pl

    dtypes = pl.from_arrow(contract.bare.empty_table()).schema  # type: ignore[union-attr]
    chosen = {
        item.name: pandera.Column(dtypes[item.name], checks=_checks(item), nullable=item.nullable)
        for item in contract.schema
        if item.name in columns and not pa.types.is_nested(item.type)
    }
    return pandera.DataFrameSchema(chosen, strict=False, coerce=False, name=contract.name)


def _checks(item: pa.Field) -> list[Any]:
    import pandera.polars as pandera

    meta = {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}
    checks = []
    if "ge" in meta:
        checks.append(pandera.Check.ge(float(meta["ge"])))
    if "le" in meta:
        checks.append(pandera.Check.le(float(meta["le"])))
    if "pattern" in meta:
        checks.append(pandera.Check.str_matches(meta["pattern"]))
    if "choices" in meta:
        checks.append(pandera.Check.isin(meta["choices"].split("|")))
    return checks
