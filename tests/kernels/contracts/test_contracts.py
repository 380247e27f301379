from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mm_embed_kernels import contracts
from mm_embed_kernels.contracts import VALIDATED_SAMPLES, Contract, ContractError, feature_contract, field
from mm_embed_kernels.contracts.arrow_checks import holds
from mm_embed_kernels.contracts.fields import HASH, ID
from mm_embed_kernels.contracts.pipeline import FAILURE_STAGES
from mm_embed_kernels.modalities import modalities
from mm_resources.storage import lance_datasets

CONTRACTS: dict[str, Contract] = {
    name: item for name in contracts.__all__ if isinstance(item := getattr(contracts, name), Contract)
}
CONTRACTS |= {
    f"VALIDATED_SAMPLES+{name}": VALIDATED_SAMPLES.extend(item.signals) for name, item in modalities().items()
}
CONTRACTS["feature_contract"] = feature_contract(8, [pa.field("user__stars", pa.int64())])

every_contract = pytest.mark.parametrize("contract", CONTRACTS.values(), ids=CONTRACTS)
HEX_LENGTHS = {HASH: 64, ID: 32}


def checks(item: pa.Field) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in (item.metadata or {}).items()}


def of_type(kind: pa.DataType, rules: dict[str, str]) -> st.SearchStrategy[Any]:
    """Valid values of a type under a field's row checks."""
    low, high = rules.get("ge"), rules.get("le")
    if pa.types.is_boolean(kind):
        return st.booleans()
    if pa.types.is_integer(kind):
        top = 2 ** (kind.bit_width - 1) - 1
        return st.integers(
            -top if low is None else int(float(low)), top if high is None else int(float(high))
        )
    if pa.types.is_floating(kind):
        edges = {
            "min_value": None if low is None else float(low),
            "max_value": None if high is None else float(high),
        }
        return st.floats(**edges, allow_nan=False, allow_infinity=False, width=kind.bit_width)
    if pa.types.is_timestamp(kind):
        return st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1), timezones=st.just(dt.UTC))
    if pa.types.is_struct(kind):
        return st.fixed_dictionaries(
            {kind.field(i).name: st.none() | of_type(kind.field(i).type, {}) for i in range(kind.num_fields)}
        )
    if pa.types.is_fixed_size_list(kind):
        return st.lists(of_type(kind.value_type, {}), min_size=kind.list_size, max_size=kind.list_size)
    if pa.types.is_list(kind):
        return st.lists(of_type(kind.value_type, {}), max_size=3)
    if pa.types.is_binary(kind):
        return st.binary(max_size=20)
    assert pa.types.is_string(kind), f"no strategy for {kind}"
    if "choices" in rules:
        return st.sampled_from(rules["choices"].split("|"))
    if "pattern" in rules:
        size = HEX_LENGTHS[rules["pattern"]]
        return st.text("0123456789abcdef", min_size=size, max_size=size)
    return st.text(max_size=20)


def valid_rows(contract: Contract) -> st.SearchStrategy[list[dict[str, Any]]]:
    columns = {}
    for item in contract.schema:
        values = of_type(item.type, checks(item))
        columns[item.name] = st.none() | values if item.nullable else values
    return st.lists(st.fixed_dictionaries(columns), min_size=1, max_size=4)


def plain(item: pa.Field) -> Any:
    """One valid value of a field, always the same."""
    rules = checks(item)
    if pa.types.is_nested(item.type):
        return [1.0] * item.type.list_size if pa.types.is_fixed_size_list(item.type) else []
    if pa.types.is_string(item.type):
        text = rules["choices"].split("|")[0] if "choices" in rules else "text"
        return "a" * HEX_LENGTHS[rules["pattern"]] if "pattern" in rules else text
    if pa.types.is_binary(item.type):
        return b"bytes"
    if pa.types.is_timestamp(item.type):
        return dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    return True if pa.types.is_boolean(item.type) else 1


def plain_table(contract: Contract, rows: int = 5) -> pa.Table:
    return contract.rows([{item.name: plain(item) for item in contract.schema}] * rows)


def breaks() -> list[Any]:
    """Every way in which one cell of one contract can break it."""
    found = []
    for name, contract in CONTRACTS.items():
        for item in contract.schema:
            rules = checks(item)
            bad: dict[str, Any] = {}
            if pa.types.is_nested(item.type):
                continue  # held by the Arrow type alone
            if not item.nullable:
                bad["null"] = None
            if "ge" in rules:
                bad["ge"] = int(float(rules["ge"])) - 1
            if "le" in rules:
                bad["le"] = int(float(rules["le"])) + 1
            if "pattern" in rules:
                bad["pattern"] = "A" * HEX_LENGTHS[rules["pattern"]]
                bad["length"] = "a" * (HEX_LENGTHS[rules["pattern"]] + 1)
            if "choices" in rules:
                bad["choices"] = "neither"
            found += [
                pytest.param(contract, item.name, value, id=f"{name}.{item.name}-{kind}")
                for kind, value in bad.items()
            ]
    return found


@every_contract
@settings(max_examples=10)
@given(data=st.data())
def test_valid_tables_fit(contract: Contract, data: st.DataObject) -> None:
    table = contract.rows(data.draw(valid_rows(contract)))
    assert contract.cast(table).equals(table)
    assert contract.violations(table) == {}


@pytest.mark.parametrize(("contract", "column", "value"), breaks())
def test_one_broken_cell_is_found_at_its_row(contract: Contract, column: str, value: Any) -> None:
    table = plain_table(contract)  # fits: see `test_split_of_a_good_table_is_the_table`
    cells = table[column].to_pylist()
    cells[3] = value
    place = table.column_names.index(column)
    broken = table.set_column(place, column, pa.array(cells, table.schema.field(column).type))
    found = contract.violations(broken)
    assert list(found) == [3]
    assert found[3].startswith(f"{column}=")
    assert found[3].count(" fails ") == 1


def test_several_broken_cells_are_all_named() -> None:
    contract = VALIDATED_SAMPLES
    row = {item.name: plain(item) for item in contract.schema}
    table = contract.rows(
        [row, {**row, "width": 0, "size": -1, "key": None}, row, {**row, "content_hash": "short"}]
    )
    found = contract.violations(table)
    assert list(found) == [1, 3]
    assert all(f"{name}=" in found[1] for name in ("width", "size", "key"))
    assert found[3].count("fails") == 1
    good, bad = contract.split(table)
    assert good.num_rows == 2
    assert contract.violations(good) == {}
    assert [(item["width"], line) for item, line in bad] == [(0, found[1]), (1, found[3])]


@every_contract
def test_split_of_a_good_table_is_the_table(contract: Contract) -> None:
    table = plain_table(contract, 2)
    assert contract.split(table) == (table, [])


@every_contract
def test_cast_refuses_unknown_columns(contract: Contract) -> None:
    table = plain_table(contract).append_column("unknown", pa.array([1] * 5))
    with pytest.raises(ContractError, match="unknown"):
        contract.cast(table)


def test_violations_refuses_unknown_columns() -> None:
    """`violations` promises it: "a whole column has the wrong type or is not in the contract"."""
    table = plain_table(VALIDATED_SAMPLES).append_column("unknown", pa.array([1] * 5))
    with pytest.raises(ContractError, match="unknown"):
        VALIDATED_SAMPLES.violations(table)


def test_wrong_type_of_a_whole_column() -> None:
    with pytest.raises(ContractError, match="size"):
        VALIDATED_SAMPLES.violations(pa.table({"size": ["three"]}))
    with pytest.raises(ContractError, match="size"):
        VALIDATED_SAMPLES.cast(pa.table({"size": ["three"]}))


def test_cast_fills_and_widens() -> None:
    table = VALIDATED_SAMPLES.cast(pa.table({"width": pa.array([3], pa.int64()), "key": ["k"]}))
    assert table.schema.equals(VALIDATED_SAMPLES.bare)
    assert table["width"].to_pylist() == [3]
    assert table["label"].to_pylist() == [None]
    with pytest.raises(ContractError, match="width"):
        VALIDATED_SAMPLES.cast(pa.table({"width": pa.array([2**40], pa.int64())}))


def test_every_asset_has_a_contract() -> None:
    import mm_assets

    modules = (Path(str(mm_assets.__file__)).parent / "assets").glob("*.py")
    assets = {path.stem for path in modules if path.stem != "__init__"}
    assert assets >= set(FAILURE_STAGES)
    assert {name: getattr(contracts, name.upper()).name for name in assets} == {name: name for name in assets}


@every_contract
def test_key_and_digest_columns_exist(contract: Contract) -> None:
    assert {contract.key, *contract.digest} <= set(contract.schema.names)
    assert len(set(contract.schema.names)) == len(contract.schema.names)
    floats = [name for name in contract.digest if pa.types.is_floating(contract.schema.field(name).type)]
    assert floats == []


@every_contract
def test_every_field_is_described(contract: Contract) -> None:
    assert [name for name, _, text in contract.describe() if not text and not name.startswith("user__")] == []


@every_contract
def test_lance_keeps_the_bare_schema(contract: Contract, tmp_path: Path) -> None:
    table, uri = plain_table(contract, 3), str(tmp_path / "table.lance")
    assert lance_datasets.create(uri, contract.bare, table.to_batches())
    dataset = lance_datasets.open_dataset(uri)
    assert dataset is not None
    assert dataset.schema.equals(contract.bare)
    assert dataset.to_table().equals(table)


def test_extend_adds_each_column_once() -> None:
    fields = [pa.field("user__a", pa.string()), pa.field("mime", pa.int64())]
    extended = VALIDATED_SAMPLES.extend(fields, ["user__a"])
    assert extended.schema.names == [*VALIDATED_SAMPLES.schema.names, "user__a"]
    assert extended.schema.field("mime").type == pa.string()
    assert extended.digest == (*VALIDATED_SAMPLES.digest, "user__a")
    assert "user__a" not in VALIDATED_SAMPLES.schema.names


def test_pandera_of_chosen_columns() -> None:
    assert set(VALIDATED_SAMPLES.pandera(["size", "mime"]).columns) == {"size", "mime"}
    assert set(contracts.CURATED_SAMPLES.pandera().columns) == set(contracts.CURATED_SAMPLES.schema.names) - {
        "rules",
        "passed",
        "duplicates",
    }


ODD = Contract(
    "odd",
    pa.schema(
        [
            field("id", pa.string(), "an id", required=True, pattern=r"^[0-9a-f]{4}$"),
            field("loose", pa.string(), "a pattern without anchors", pattern="a|b"),
            field("kind", pa.string(), "a choice", choices=("ok", "failed")),
            field("whole", pa.int64(), "bounds", ge=0, le=255),
            field("share", pa.float64(), "bounds", required=True, ge=0, le=1),
            field("yes", pa.bool_(), "anything"),
        ]
    ),
    key="id",
    digest=("id",),
)
ODD_ROWS = st.fixed_dictionaries(
    {
        "id": st.sampled_from(["00ff", "00ff\n", "x00ff", "", None, "ÿ00f"]),
        "loose": st.sampled_from(["a", "cb", "\na", "ab", "", None]),
        "kind": st.sampled_from(["ok", "failed", "OK", "", None]),
        "whole": st.sampled_from([0, 255, 256, -1, None, 2**53 + 1]),
        "share": st.sampled_from([0.0, 1.0, 1.1, -0.0, float("nan"), float("inf"), None]),
        "yes": st.sampled_from([True, None]),
    }
)


@given(rows=st.lists(ODD_ROWS, max_size=3))
def test_arrow_and_pandera_find_the_same_tables_sound(rows: list[dict[str, object]]) -> None:
    """What Arrow takes for sound pandera takes for sound, too; it never names a row in its place."""
    import pandera.errors
    import polars as pl

    table = pa.Table.from_pylist(rows, schema=ODD.bare)
    try:
        ODD.pandera().validate(pl.from_arrow(table), lazy=True)
        is_sound = True
    except pandera.errors.SchemaErrors:
        is_sound = False
    assert holds(table, ODD.schema) <= is_sound
    assert (ODD.violations(table) == {}) == is_sound


def test_sound_tables_need_no_pandera() -> None:
    row = {"id": "00ff", "loose": "b", "kind": "ok", "whole": 7, "share": 0.5, "yes": None}
    assert holds(pa.Table.from_pylist([row, {**row, "whole": None}], schema=ODD.bare), ODD.schema)
    assert holds(ODD.bare.empty_table(), ODD.schema)
    assert not holds(pa.table({"whole": pa.array([1], pa.int32())}), ODD.schema)
