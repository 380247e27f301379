"""`mm label` records all reviews of a file or none, and scores rules and failures against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mm_assets.cli.main import app
from mm_assets.curation.review_files import record_reviews
from mm_assets.reports.cell_report import cell_report
from mm_assets.reports.html_page import page
from mm_embed_kernels.contracts import (
    CONTENT_BLOBS,
    CURATED_SAMPLES,
    RAW_ASSETS,
    SAMPLE_METADATA,
    VALIDATED_SAMPLES,
)
from mm_embed_kernels.errors import UserError
from mm_embed_kernels.modalities import get
from mm_embed_kernels.spec.dataset_spec import parse_spec
from mm_resources.catalog import Catalog
from mm_resources.cell import Cell
from mm_resources.costs.prices import Prices
from mm_resources.tables.stage_refs import StageMeta

CELLS = {version: Cell("birds", version, "text") for version in ("v1", "v2")}
SPEC = """
name: birds
version: {version}
sources:
  - {{name: notes, modality: text, uri: /nowhere/*.txt, allow_empty: true}}
  - {{name: more, modality: text, uri: /elsewhere/*.txt, allow_empty: true}}
"""
# key -> failed rules; a sample that fails too_short is dropped.
FAILS = {"a": ["too_short"], "b": ["too_short", "boilerplate"], "c": ["boilerplate"], "d": [], "e": []}
BROKEN = "f"


def sample_id(key: str) -> str:
    return f"{ord(key):032x}"


def publish(
    catalog: Catalog, cell: Cell, contract: Any, rows: list[dict[str, Any]], failures: int = 0
) -> None:
    tables = catalog.tables
    meta = StageMeta(
        "d", "i", len(rows), len(rows), failures, 0, failures, "e", "", {}, "r", "now", samples=len(rows)
    )
    read_version = tables.fence(contract.name, cell)
    written = tables.write(contract.name, cell, contract, [contract.rows(rows)])
    tables.commit(contract.name, cell, written, meta, read_version)


def decisions(key: str) -> dict[str, Any]:
    rules = [("too_short", "drop"), ("boilerplate", "flag"), ("empty", "drop")]
    judged = [{"rule": rule, "passed": rule not in FAILS[key], "action": action} for rule, action in rules]
    return {
        "kept": "too_short" not in FAILS[key],
        "rule": "too_short" if "too_short" in FAILS[key] else None,
        "rules": judged,
        "split": "train",
    }


def fill(catalog: Catalog, cell: Cell, content: str) -> None:
    rows = [
        {
            "sample_id": sample_id(key),
            "key": key,
            "source": "notes",
            "source_uri": f"/nowhere/{key}",
            "content_hash": content * 64,
        }
        for key in FAILS
    ]
    broken = {
        **rows[0],
        "sample_id": sample_id(BROKEN),
        "key": BROKEN,
        "source_uri": "/nowhere/f",
        "content_hash": None,
    }
    publish(
        catalog,
        cell,
        RAW_ASSETS,
        [*rows, broken, {**rows[0], "sample_id": "9" * 32, "source": "more", "source_uri": "/elsewhere/a"}],
    )
    publish(catalog, cell, CURATED_SAMPLES, [{**row, **decisions(row["key"])} for row in rows])
    publish(catalog, cell, VALIDATED_SAMPLES.extend(get("text").signals), [])
    publish(catalog, cell, CONTENT_BLOBS, [])
    event = {"sample_id": sample_id(BROKEN), "error_class": "timeout", "message": "late"}
    publish(
        catalog,
        cell,
        SAMPLE_METADATA,
        [],
        failures=catalog.failures.write("sample_metadata", cell, "r", [event]).version,
    )


@pytest.fixture
def birds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Catalog:
    monkeypatch.setenv("MM_STORE", str(tmp_path / "store"))
    catalog = Catalog.open(tmp_path / "store")
    catalog.registry.register(parse_spec(SPEC.format(version="v1"), "birds.yaml"))
    fill(catalog, CELLS["v1"], "1")
    return catalog


def asked(*words: Any) -> Any:
    done = CliRunner().invoke(app, ["label", *map(str, words), "--json"], catch_exceptions=False)
    return json.loads(done.output)


def marks(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text(
        "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines) + "\n", "utf-8"
    )
    return path


def scores(found: Any) -> dict[str, Any]:
    (cell,) = found["cells"]
    return {
        score["name"]: tuple(
            score[name] for name in ("marked", "caught", "wrong", "missed", "precision", "recall")
        )
        for score in cell["scores"]
    }


def test_rules_and_failures_are_scored(birds: Catalog, tmp_path: Path) -> None:
    """Reviews agree with dropping a, failing f and keeping d, not with dropping b or only flagging c."""
    file = marks(
        tmp_path / "marks.jsonl",
        {"key": "a", "source": "notes", "mark": "drop"},
        {"source_uri": "/nowhere/b", "mark": "KEEP "},
        {"sample_id": sample_id("c"), "key": "not looked at", "mark": "drop"},
        "",
        {"key": "d", "mark": "keep"},
        {"key": BROKEN, "mark": "drop"},
        {"key": "gone", "mark": "drop"},
    )
    found = asked(file, "--dataset-version", "birds@v1")
    assert (found["recorded"], found["unknown"], found["unknown_lines"]) == (5, 1, ["line 7: key gone"])
    assert scores(found) == {
        "kept or dropped": (4, 1, 1, 1, 0.5, 0.5),
        "boilerplate": (4, 1, 1, 1, 0.5, 0.5),
        "empty": (4, 0, 0, 2, None, 0.0),
        "too_short": (4, 1, 1, 1, 0.5, 0.5),
        "timeout": (5, 1, 0, 2, 1.0, pytest.approx(1 / 3)),
    }
    assert {score["name"]: score["action"] for score in found["cells"][0]["scores"]}["boilerplate"] == "flag"
    html = "".join(page("birds@v1", [cell_report(birds, CELLS["v1"], Prices())], ["text"], Prices()))
    assert "Against 4 reviewed samples" in html
    assert "<td class=word>too_short</td><td class=word>drop</td><td>4</td>" in html


def test_the_latest_mark_counts_and_earlier_ones_stay(birds: Catalog, tmp_path: Path) -> None:
    table = marks(tmp_path / "marks.csv", "key,mark,why", "c,drop,boring", "d,drop,")
    assert asked(table, "--dataset-version", "birds@v1")["recorded"] == 2
    assert scores(asked("--dataset-version", "birds@v1"))["kept or dropped"] == (2, 0, 0, 2, None, 0.0)
    asked(marks(table, "key,mark", "d,keep"), "--dataset-version", "birds@v1")
    assert scores(asked("--dataset-version", "birds@v1"))["kept or dropped"] == (2, 0, 0, 1, None, 0.0)
    assert birds.reviews.latest(CELLS["v1"]).num_rows == 2


def test_labels_are_recorded_and_written_for_a_side_table(birds: Catalog, tmp_path: Path) -> None:
    table = marks(tmp_path / "marks.csv", "key,mark,label", "c,drop,Möwe", "d,,heron", "e,keep,")
    assert asked(table, "--dataset-version", "birds@v1")["recorded"] == 3
    asked(marks(table, "key,label", "d,grey heron"), "--dataset-version", "birds@v1")
    assert sorted(birds.reviews.latest(CELLS["v1"])["mark"].to_pylist()) == ["drop", "keep"]
    asked("--dataset-version", "birds@v1", "--labels", str(tmp_path / "labels.csv"))
    assert (tmp_path / "labels.csv").read_text("utf-8").split() == [
        "key,sample_id,modality,label",
        f"c,{sample_id('c')},text,Möwe",
        f"d,{sample_id('d')},text,grey",
        "heron",
    ]


def test_a_log_of_before_takes_labels(birds: Catalog) -> None:
    """A log without the column of labels is read, and widened by the next mark."""
    row = {
        "sample_id": sample_id("c"),
        "dataset": "birds",
        "modality": "text",
        "version": "v1",
        "origin": "a",
    }
    birds.reviews.record([{**row, "mark": "drop"}])
    import lance

    lance.dataset(birds.store.uri("ledger/marks.lance")).drop_columns(["label"])
    assert (birds.reviews.labels(CELLS["v1"]).num_rows, birds.reviews.latest(CELLS["v1"]).num_rows) == (0, 1)
    birds.reviews.record([{**row, "mark": "label", "label": "gull"}])
    assert birds.reviews.labels(CELLS["v1"])["label"].to_pylist() == ["gull"]


def test_a_mark_holds_for_the_bytes_that_were_marked(birds: Catalog, tmp_path: Path) -> None:
    asked(marks(tmp_path / "marks.tsv", "key\tmark", "c\tdrop", "d\tkeep"), "--dataset-version", "birds@v1")
    birds.registry.register(parse_spec(SPEC.format(version="v2"), "birds.yaml"))
    fill(birds, CELLS["v2"], "1")
    assert scores(asked("--dataset-version", "birds@v2"))["kept or dropped"][0] == 2, (
        "a new version is scored by what is known"
    )
    fill(birds, CELLS["v2"], "2")
    assert scores(asked("--dataset-version", "birds@v2")) == {}
    said = CliRunner().invoke(app, ["label", "--dataset-version", "birds@v2"], catch_exceptions=False).output
    assert said == "no sample of birds@v2 is reviewed\n"


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        (
            "m.jsonl",
            [{"key": "d", "mark": "keep"}, {"key": "e", "mark": "maybe"}],
            r"m.jsonl line 2: mark is 'maybe', but must be keep or drop",
        ),
        (
            "m.jsonl",
            [{"mark": "keep"}],
            r"line 1 names no sample: it needs one of sample_id, key, source_uri",
        ),
        ("m.jsonl", ["[1]"], r"line 1 is not a JSON object"),
        (
            "m.jsonl",
            [{"key": "d", "mark": "keep"}, {"key": "a", "mark": "drop"}],
            r"line 2: key 'a' names several samples of birds@v1; add a column",
        ),
        (
            "m.jsonl",
            [{"key": "d", "mark": "keep"}, {"sample_id": sample_id("d"), "mark": "drop"}],
            r"line 2 marks .* drop, but line 1 marks it keep",
        ),
        ("m.csv", ["key,mark", "gone,drop"], r"m.csv names no sample of birds@v1; line 2: key gone is none"),
        ("m.csv", ["key,verdict", "d,drop"], r"line 2: mark is None"),
        (
            "m.csv",
            ["key,label", "d,heron", "d,gull"],
            r"line 3 marks 'd' label 'gull', but line 2 marks it label 'heron'",
        ),
        ("m.txt", ["d"], r"its name must end in .csv, .tsv or .jsonl"),
    ],
)
def test_a_mistake_is_one_line_and_records_nothing(
    birds: Catalog, tmp_path: Path, name: str, lines: list[Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        record_reviews(birds, [CELLS["v1"]], marks(tmp_path / name, *lines))
    assert birds.reviews.latest(CELLS["v1"]).num_rows == 0


def test_a_file_that_is_not_there(birds: Catalog, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none.csv cannot be read: .*No such file"):
        record_reviews(birds, [CELLS["v1"]], tmp_path / "none.csv")
