"""The suite: ratios, the table, the file of results, the table of the docs and the plot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ratios, records
from benchmarks.__main__ import line
from benchmarks.ratios import Row
from benchmarks.suite import measure, names

ROWS = [
    Row("loader", 0.85, 0.8, 0.9, 0.8, ">="),
    Row("no change", 0.0412, 0.04, 0.05, 0.02, "<="),
    Row("start", 0.3, 0.3, 0.3, None, "<="),
]


def test_ratio_follows_the_sense() -> None:
    times = {"ours": iter([2.0, 4.0, 1.0]), "limit": iter([1.0, 1.0, 1.0])}
    rate = ratios.measure_pairs(
        "x", lambda: next(times["ours"]), lambda: next(times["limit"]), goal=0.4, sense=">="
    )
    assert (rate.low, rate.ratio, rate.high, rate.met) == (0.25, 0.5, 1.0, True)
    time = ratios.row("x", [1.3, 1.0, 1.2], goal=1.1, sense="<=")
    assert (time.low, time.ratio, time.high, time.met) == (1.0, 1.2, 1.3, False)
    assert ratios.row("x", [9.0], goal=None, sense="<=").met
    with pytest.raises(ValueError, match="give >= or <="):
        ratios.row("x", [1.0], goal=1.0, sense="<")


def test_limit_and_platform_alternate() -> None:
    turns: list[str] = []

    def run(name: str) -> float:
        turns.append(name)
        return 1.0

    ratios.measure_pairs("x", lambda: run("ours"), lambda: run("limit"), goal=1.0, sense=">=", pairs=2)
    assert turns == ["limit", "ours"] * 2


def test_a_line_names_ratio_spread_goal_and_met() -> None:
    assert line(ROWS[0]).split() == ["loader", "0.85", "0.80", "to", "0.90", ">=", "0.8", "yes"]
    assert line(ROWS[1]).split() == ["no", "change", "0.041", "0.040", "to", "0.050", "<=", "0.02", "no"]
    assert line(ROWS[2]).split() == ["start", "0.30", "0.30", "to", "0.30", "none"]


def test_modules_with_rows_are_the_suite() -> None:
    assert {"increment", "ingest", "loader", "near_duplicates", "sandbox", "search"} <= set(names())
    assert "ratios" not in names()


def test_results_of_a_commit_share_a_file(tmp_path: Path) -> None:
    path = records.write(ROWS[:2], tmp_path, "aaa")
    again = records.write([Row("loader", 0.9, 0.9, 0.9, 0.8, ">=")], tmp_path, "aaa")
    report = json.loads(path.read_text())
    assert again == path
    assert set(report) == {"machine", "versions", "commit", "at", "rows"}
    assert report["rows"][0] == {
        "name": "loader",
        "ratio": 0.9,
        "low": 0.9,
        "high": 0.9,
        "goal": 0.8,
        "sense": ">=",
    }
    assert [row["name"] for row in report["rows"]] == ["loader", "no change"]


def test_the_page_shows_the_newest_row_of_each_name(tmp_path: Path) -> None:
    records.write(ROWS, tmp_path, "aaa")
    records.write([Row("loader", 0.7, 0.7, 0.7, 0.8, ">=")], tmp_path, "bbb")
    page = tmp_path / "benchmarks.md"
    page.write_text(f"before\n{records.BEGIN}\nold\n{records.END}\nafter\n")
    for _ in range(2):
        records.write_page(page, tmp_path)
    assert page.read_text().splitlines() == [
        "before",
        records.BEGIN,
        "| work | ratio | better | spread | goal | met | commit |",
        "|---|---|---|---|---|---|---|",
        "| loader | 0.70 | higher | 0.70 to 0.70 | >= 0.8 | no | bbb |",
        "| no change | 0.041 | lower | 0.040 to 0.050 | <= 0.02 | no | aaa |",
        "| start | 0.30 | lower | 0.30 to 0.30 | none |  | aaa |",
        records.END,
        "after",
    ]
    page.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        records.write_page(page, tmp_path)


def test_the_plot_is_the_same_for_the_same_rows(tmp_path: Path) -> None:
    records.write(ROWS, tmp_path, "aaa")
    records.write(ROWS[:1], tmp_path, "bbb")
    drawn = records.plot(tmp_path).read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("loader (&gt;=)", "bbb"))
    assert records.plot(tmp_path).read_text() == drawn


def test_a_module_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="ratios ended with 1"):
        list(measure("ratios", 1.0, 1))


def test_an_unknown_benchmark_is_a_one_line_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "speed_of_light"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "there is no benchmark 'speed_of_light'; there are: " in done.stderr.splitlines()[-1]


def test_the_page_has_its_markers() -> None:
    text = records.PAGE.read_text("utf-8")
    assert records.BEGIN in text
    assert records.END in text
