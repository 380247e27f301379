"""The suite's own workings: ratios, the table, the file of results, the README's table and the plot."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import ratios, records
from benchmarks.__main__ import line
from benchmarks.ratios import Row
from benchmarks.suite import measured, names

ROWS = [
    Row("loader", 0.85, 0.8, 0.9, 0.8, ">="),
    Row("no change", 0.0412, 0.04, 0.05, 0.02, "<="),
    Row("start", 0.3, 0.3, 0.3, None, "<="),
]


def test_more_is_better_or_less_is() -> None:
    taken = {"ours": iter([2.0, 4.0, 1.0]), "limit": iter([1.0, 1.0, 1.0])}
    rate = ratios.paired("x", lambda: next(taken["ours"]), lambda: next(taken["limit"]), goal=0.4, sense=">=")
    assert (rate.low, rate.ratio, rate.high, rate.met) == (0.25, 0.5, 1.0, True)
    time = ratios.row("x", [1.3, 1.0, 1.2], goal=1.1, sense="<=")
    assert (time.low, time.ratio, time.high, time.met) == (1.0, 1.2, 1.3, False)
    assert ratios.row("x", [9.0], goal=None, sense="<=").met
    with pytest.raises(ValueError, match="give >= or <="):
        ratios.row("x", [1.0], goal=1.0, sense="<")


def test_the_limit_and_ours_take_turns() -> None:
    turns: list[str] = []

    def taking(name: str) -> float:
        turns.append(name)
        return 1.0

    ratios.paired("x", lambda: taking("ours"), lambda: taking("limit"), goal=1.0, sense=">=", pairs=2)
    assert turns == ["limit", "ours"] * 2


def test_a_line_says_whether_the_goal_is_met() -> None:
    assert line(ROWS[0]).split() == ["loader", "0.85", "0.80", "to", "0.90", ">=", "0.8", "yes"]
    assert line(ROWS[1]).split() == ["no", "change", "0.041", "0.040", "to", "0.050", "<=", "0.02", "no"]
    assert line(ROWS[2]).split() == ["start", "0.30", "0.30", "to", "0.30", "none"]


def test_modules_of_the_suite_are_found() -> None:
    assert {"increment", "ingest", "loader", "near_duplicates", "sandbox", "search"} <= set(names())
    assert "ratios" not in names()


def test_results_of_a_commit_come_together(tmp_path: Path) -> None:
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


def test_the_readme_shows_the_newest_row_of_each_name(tmp_path: Path) -> None:
    records.write(ROWS, tmp_path, "aaa")
    records.write([Row("loader", 0.7, 0.7, 0.7, 0.8, ">=")], tmp_path, "bbb")
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{records._BEGIN}\nold\n{records._END}\nafter\n")
    for _ in range(2):
        records.write_readme(readme, tmp_path)
    assert readme.read_text().splitlines() == [
        "before",
        records._BEGIN,
        "| work | ratio | spread | goal | met | commit |",
        "|---|---|---|---|---|---|",
        "| loader | 0.70 | 0.70 to 0.70 | >= 0.8 | no | bbb |",
        "| no change | 0.041 | 0.040 to 0.050 | <= 0.02 | no | aaa |",
        "| start | 0.30 | 0.30 to 0.30 | none |  | aaa |",
        records._END,
        "after",
    ]
    readme.write_text("no markers")
    with pytest.raises(ValueError, match="has no lines"):
        records.write_readme(readme, tmp_path)


def test_the_plot_is_the_same_for_the_same_rows(tmp_path: Path) -> None:
    records.write(ROWS, tmp_path, "aaa")
    records.write(ROWS[:1], tmp_path, "bbb")
    drawn = records.plot(tmp_path).read_text()
    assert all(f"<!-- {text} -->" in drawn for text in ("loader (&gt;=)", "bbb"))
    assert records.plot(tmp_path).read_text() == drawn


def test_a_module_that_fails_is_named() -> None:
    with pytest.raises(RuntimeError, match="ratios ended with 1"):
        list(measured("ratios", 1.0, 1))


def test_a_benchmark_that_is_none_is_one_line() -> None:
    asked = subprocess.run(
        [sys.executable, "-m", "benchmarks", "--only", "speed_of_light"], capture_output=True, text=True
    )
    assert asked.returncode == 2
    assert "there is no benchmark 'speed_of_light'; there are: " in asked.stderr.splitlines()[-1]


def test_the_readme_has_its_markers() -> None:
    text = records.README.read_text("utf-8")
    assert records._BEGIN in text
    assert records._END in text
