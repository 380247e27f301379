"""Labels and columns from the parent folder and from tables beside the files."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pyarrow as pa
import pytest

from mm_embed_kernels.errors import UserError
from tests.resources.places import Place


def test_label_from_the_parent_folder(place: Place) -> None:
    place.put("cats/1.txt", "dogs/big/2.txt", "3.txt")
    labels = {key: item.label for key, item in place.samples(label={"from": "parent_dir"}).items()}
    assert labels == {"cats/1.txt": "cats", "dogs/big/2.txt": "big", "3.txt": place.root.rsplit("/", 1)[-1]}
    assert place.samples("cats/*.txt", label={"from": "parent_dir"})["1.txt"].label == "cats"
    assert place.samples("cats/1.txt", label={"from": "parent_dir"})["1.txt"].label == "cats"
    assert place.samples()["cats/1.txt"].label is None


ROWS = [
    {"file": "cats/1.txt", "label": "cat", "link": "tom", "group": "house", "stars": 5, "note": "by key"},
    {"file": "2.txt", "label": "dog", "link": "", "group": None, "stars": 3, "note": "by name"},
    {"file": "other.txt", "label": "x", "link": "x", "group": "x", "stars": 1, "note": "of no file"},
]


def table_file(kind: str) -> bytes:
    import csv

    import pyarrow.parquet as parquet

    stream = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(ROWS), stream)
    elif kind == "jsonl":
        stream.write("\n".join(json.dumps(row) for row in ROWS).encode())
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(ROWS[0]), delimiter="\t" if kind == "tsv" else ",")
        writer.writeheader()
        writer.writerows(ROWS)
        stream.write(text.getvalue().encode())
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_side_table_by_key_and_by_file_name(place: Place, kind: str) -> None:
    place.put("data/cats/1.txt", "data/dogs/2.txt", "data/3.txt")
    place.put(f"meta.{kind}", data=table_file(kind))
    table = {
        "uri": f"{place.root}/meta.{kind}",
        "key": "file",
        "columns": ["label", "link", "group", "stars", "note"],
    }
    found = place.samples("data", table=table, schema={"stars": "int", "note": "string"})
    seen = {key: (item.label, item.link, item.group, item.columns) for key, item in found.items()}
    assert seen == {
        "cats/1.txt": ("cat", "tom", "house", {"stars": 5, "note": "by key"}),
        "dogs/2.txt": ("dog", None, None, {"stars": 3, "note": "by name"}),
        "3.txt": (None, None, None, {}),
    }


def test_side_table_wins_over_the_parent_folder(disk: Place) -> None:
    disk.put("data/cats/1.txt", "data/cats/9.txt")
    disk.put("meta.csv", data=table_file("csv"))
    table = {"uri": f"{disk.root}/meta.csv", "key": "file", "columns": ["label"]}
    labels = {
        key: item.label
        for key, item in disk.samples("data", table=table, label={"from": "parent_dir"}).items()
    }
    assert labels == {"cats/1.txt": "cat", "cats/9.txt": "cats"}


def test_a_file_name_that_is_not_unique_joins_nothing(disk: Place) -> None:
    """The side table speaks of ``1.txt``, and there are two of them: neither may take the row."""
    disk.put("data/cats/1.txt", "data/dogs/1.txt", "data/dogs/2.txt")
    disk.put("meta.csv", data=b"file,label\n1.txt,cat\n2.txt,dog\n")
    table = {"uri": f"{disk.root}/meta.csv", "key": "file", "columns": ["label"]}
    labels = {key: item.label for key, item in disk.samples("data", table=table).items()}
    assert labels == {"cats/1.txt": None, "dogs/1.txt": None, "dogs/2.txt": "dog"}


@pytest.mark.parametrize(
    "path",
    ["/home/ann/data/zoo/cats/1.txt", "./cats/1.txt", "C:\\data\\cats\\1.txt", "data/../zoo/cats/1.txt"],
)
def test_paths_of_another_machine_join_by_their_end(disk: Place, path: str) -> None:
    disk.put("data/cats/1.txt", "data/dogs/1.txt")
    disk.put("meta.jsonl", data=json.dumps({"file": path, "label": "cat"}).encode())
    table = {"uri": f"{disk.root}/meta.jsonl", "key": "file", "columns": ["label"]}
    labels = {key: item.label for key, item in disk.samples("data", table=table).items()}
    assert labels == {"cats/1.txt": "cat", "dogs/1.txt": None}


def test_an_end_that_two_files_share_joins_nothing(disk: Place) -> None:
    disk.put("data/a/cats/1.txt", "data/b/cats/1.txt", "data/cats/2.txt", "data/c/cats/2.txt")
    rows = [{"file": "cats/1.txt", "label": "x"}, {"file": "cats/2.txt", "label": "by key"}]
    disk.put("meta.jsonl", data="\n".join(map(json.dumps, rows)).encode())
    table = {"uri": f"{disk.root}/meta.jsonl", "key": "file", "columns": ["label"]}
    labels = {key: item.label for key, item in disk.samples("data", table=table).items()}
    assert {key for key, label in labels.items() if label} == {"cats/2.txt"}


def test_names_that_a_mac_has_decomposed(disk: Place) -> None:
    disk.put("data/Vo\u0308gel/große Amsel.txt")
    disk.put("meta.csv", data="file;label\nV\u00f6gel/große Amsel.txt;Amsel, gro\u00df\n".encode())
    table = {"uri": f"{disk.root}/meta.csv", "key": "file", "columns": ["label"]}
    assert [item.label for item in disk.samples("data", table=table).values()] == ["Amsel, groß"]


def test_a_cell_of_the_wrong_type_costs_its_own_sample(disk: Place) -> None:
    disk.put("data/1.txt", "data/2.txt")
    disk.put("meta.csv", data=b"file,stars\n1.txt,many\n2.txt,2\n")
    table = {"uri": f"{disk.root}/meta.csv", "key": "file", "columns": ["stars"]}
    found = disk.samples("data", table=table, schema={"stars": "int"})
    assert found["1.txt"].error is not None
    assert found["1.txt"].error.error_class == "schema_mismatch"
    assert (found["2.txt"].error, found["2.txt"].columns) == (None, {"stars": 2})


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("meta.csv", b"name,label\n1.txt,cat\n", "has no column 'file'; it has: name, label"),
        ("meta.csv", b"file,kind\n1.txt,cat\n", "has no column 'label'; it has: file, kind"),
        ("meta.parquet", b"not parquet", "cannot be read"),
        ("meta.xlsx", b"", "ending is none of"),
        ("meta.csv", None, "cannot be read"),
    ],
)
def test_mistakes_in_a_side_table(place: Place, name: str, data: bytes | None, line: str) -> None:
    place.put("data/1.txt")
    if data is not None:
        place.put(name, data=data)
    table = {"uri": f"{place.root}/{name}", "key": "file", "columns": ["label"]}
    with pytest.raises(UserError, match=re.escape(line)) as caught:
        list(place.source("data", table=table).list())
    assert name in str(caught.value)


@pytest.mark.parametrize(
    ("name", "data", "error", "line"),
    [
        ("meta.csv", b"file,label\n1.txt,cat\n2.txt\n", "bad_record", "has 1 fields, the header 2"),
        ("meta.jsonl", b'{"file": "1.txt", "label": "cat"}\n{oops\n', "bad_record", "not JSON"),
        (
            "meta.csv",
            b"file,label\n1.txt,cat\n1.txt,dog\n1.txt,cat\n",
            "duplicate_row",
            "'1.txt' stands more than once",
        ),
    ],
)
def test_a_bad_row_of_a_side_table_is_a_failure_of_its_own(
    place: Place, name: str, data: bytes, error: str, line: str
) -> None:
    place.put("data/1.txt", "data/2.txt")
    place.put(name, data=data)
    found = list(
        place.source(
            "data", table={"uri": f"{place.root}/{name}", "key": "file", "columns": ["label"]}
        ).list()
    )
    bad = [item for item in found if item.error]
    assert [item.error.error_class for item in bad if item.error] == [error]
    assert line in str(bad[0].error)
    assert (bad[0].uri, bad[0].key.split("#")[0]) == (f"{place.root}/{name}", name)
    assert {item.key: item.label for item in found if not item.error} == {"1.txt": "cat", "2.txt": None}


@pytest.mark.parametrize("first", [{"file": "1.txt"}, {"file": "1.txt", "label": None}])
def test_a_field_that_some_rows_of_json_lack_is_null(disk: Place, first: dict[str, Any]) -> None:
    disk.put("data/1.txt", "data/2.txt", "data/3.txt")
    rows: list[dict[str, Any]] = [
        first,
        {"file": "2.txt", "label": "cat", "note": "n"},
        {"file": "3.txt", "note": "m"},
    ]
    disk.put("meta.jsonl", data="\n".join(map(json.dumps, rows)).encode())
    table = {"uri": f"{disk.root}/meta.jsonl", "key": "file", "columns": ["label", "note"]}
    found = disk.samples("data", table=table, schema={"note": "string"})
    assert {key: (item.error, item.label, item.columns) for key, item in found.items()} == {
        "1.txt": (None, None, {"note": None}),
        "2.txt": (None, "cat", {"note": "n"}),
        "3.txt": (None, None, {"note": "m"}),
    }


def test_a_column_that_no_row_of_json_has(disk: Place) -> None:
    disk.put("data/1.txt")
    disk.put("meta.jsonl", data=b'{"file": "1.txt", "kind": 1}\n{"file": "2.txt", "size": 1}\n')
    table = {"uri": f"{disk.root}/meta.jsonl", "key": "file", "columns": ["label"]}
    with pytest.raises(UserError, match="has no column 'label'; it has: file, kind, size"):
        disk.samples("data", table=table)
