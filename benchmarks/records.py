"""Results of the suite: one file of rows for each day and commit, a plot of all rows, the docs' table."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.ratios import Row

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "explanation" / "benchmarks.md"
_LIBRARIES = (
    "dagster",
    "duckdb",
    "lancedb",
    "numpy",
    "pyarrow",
    "pylance",
    "ray",
    "rensa",
    "sentence-transformers",
    "timm",
    "torch",
)
BEGIN, END = "<!-- benchmarks: written by `python -m benchmarks --page` -->", "<!-- /benchmarks -->"
_COLUMNS = 3
_BETTER = {">=": "higher", "<=": "lower"}
# Their ratio is predicted over measured.
_PREDICTIONS = "cost model"


def write(rows: Iterable[Row], folder: Path = FOLDER, commit: str | None = None) -> Path:
    """Write rows into the file of this day and commit; rows of other names in it are preserved."""
    commit, day = commit or _commit(), f"{datetime.now(UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day}.json"
    if path.exists() and json.loads(path.read_text())["commit"] != commit:
        path = folder / f"{day}-{commit}.json"
    earlier = json.loads(path.read_text())["rows"] if path.exists() else []
    by_name = {row["name"]: row for row in [*earlier, *map(asdict, rows)]}
    at = datetime.now(UTC).isoformat()
    report = {
        "machine": _machine(),
        "versions": _versions(),
        "commit": commit,
        "at": at,
        "rows": list(by_name.values()),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """Return all reports, oldest first."""
    return sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda report: str(report["at"])
    )


def latest(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the newest row of each name, with its ``commit``."""
    return list(
        {
            row["name"]: {**row, "commit": report["commit"]} for report in reports for row in report["rows"]
        }.values()
    )


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """Return the table of the docs, which says of each row in which direction its ratio is good."""
    lines = ["| work | ratio | better | spread | goal | met | commit |", "|---|---|---|---|---|---|---|"]
    for values in sorted(rows, key=lambda values: values["name"]):
        row = Row(**{name: value for name, value in values.items() if name != "commit"})
        ratio, *others = cells(row)
        lines.append(
            f"| {row.name} | {ratio} | {direction(row)} | {' | '.join(others)} | {values['commit']} |"
        )
    return "\n".join(lines)


def direction(row: Row) -> str:
    """Return in which direction a row's ratio is good: ``higher``, ``lower`` or ``nearer 1``."""
    return "nearer 1" if row.name.startswith(_PREDICTIONS) else _BETTER[row.sense]


def cells(row: Row) -> tuple[str, str, str, str]:
    """Return ratio, spread, goal and `yes` or `no` for a goal that is met or not, as text."""
    digits = 3 if row.ratio < 0.1 else 2
    goal, met = (
        ("none", "") if row.goal is None else (f"{row.sense} {row.goal:g}", "yes" if row.met else "no")
    )
    return f"{row.ratio:.{digits}f}", f"{row.low:.{digits}f} to {row.high:.{digits}f}", goal, met


def write_page(page: Path = PAGE, folder: Path = FOLDER) -> None:
    """Write the newest rows between the two markers of the docs' page.

    Raises:
        ValueError: if a marker is missing.
    """
    text = page.read_text("utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{begin}\n{markdown(latest(read(folder)))}\n{end}{after}", "utf-8")


def plot(folder: Path = FOLDER) -> Path:
    """Plot ratio by commit, one panel for each row with its goal as a line; return the file."""
    import matplotlib as mpl

    mpl.use("svg")
    # Equal rows produce an equal file.
    mpl.rcParams["svg.hashsalt"] = "ratios"
    import matplotlib.pyplot as plt

    reports = read(folder)
    names = sorted({row["name"] for report in reports for row in report["rows"]})
    height = -(-len(names) // _COLUMNS)
    figure, axes = plt.subplots(
        height, _COLUMNS, figsize=(4 * _COLUMNS, 2.2 * height), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes.flat, names, strict=False):
        _draw(
            axis,
            name,
            [(report["commit"], row) for report in reports for row in report["rows"] if row["name"] == name],
        )
    for axis in axes.flat[len(names) :]:
        axis.axis("off")
    path = folder / "ratios.svg"
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path


def _draw(axis: Any, name: str, points: list[tuple[str, dict[str, Any]]]) -> None:
    places = range(len(points))
    axis.vlines(
        places,
        [row["low"] for _, row in points],
        [row["high"] for _, row in points],
        color="0.7",
        linewidth=3,
    )
    axis.plot(places, [row["ratio"] for _, row in points], "o-", color="tab:blue", markersize=4)
    goal = points[-1][1]["goal"]
    if goal is not None:
        axis.axhline(goal, color="tab:red", linewidth=1)
    axis.set_title(f"{name} ({points[-1][1]['sense']})", fontsize=7)
    axis.set_xticks(places, [commit[:7] for commit, _ in points], fontsize=6)
    axis.tick_params(axis="y", labelsize=6)
    axis.margins(0.2)


def _commit() -> str:
    """Return the short hash of HEAD, with a plus where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    # The suite itself writes the results and the table of the docs: they are no change of the code.
    changed = subprocess.run(
        [*git, "diff", "HEAD", "--quiet", "--", "..", ":!results", ":!../docs"], capture_output=True
    )
    return head.stdout.strip() + ("+" if changed.returncode else "")


def _machine() -> dict[str, Any]:
    import psutil

    named = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    return {
        "processor": named[0] if named else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in _LIBRARIES}
