"""What the suite leaves: a file of rows for each day and commit, a plot of all of them, and the README's table."""

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
README = Path(__file__).parent.parent / "README.md"
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
_BEGIN, _END = "<!-- benchmarks: written by `python -m benchmarks --readme` -->", "<!-- /benchmarks -->"
_COLUMNS = 3


def write(rows: Iterable[Row], folder: Path = FOLDER, commit: str | None = None) -> Path:
    """Put rows into the day's file; those of other names that the same commit has measured that day stay there."""
    commit, day = commit or _commit(), f"{datetime.now(UTC):%Y-%m-%d}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{day}.json"
    if path.exists() and json.loads(path.read_text())["commit"] != commit:
        path = folder / f"{day}-{commit}.json"
    known = json.loads(path.read_text())["rows"] if path.exists() else []
    found = {row["name"]: row for row in [*known, *map(asdict, rows)]}
    at = datetime.now(UTC).isoformat()
    report = {
        "machine": _machine(),
        "versions": _versions(),
        "commit": commit,
        "at": at,
        "rows": list(found.values()),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def read(folder: Path = FOLDER) -> list[dict[str, Any]]:
    """All reports, oldest first."""
    return sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda report: str(report["at"])
    )


def latest(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest row of each name, with its ``commit``."""
    return list(
        {
            row["name"]: {**row, "commit": report["commit"]} for report in reports for row in report["rows"]
        }.values()
    )


def markdown(rows: Iterable[dict[str, Any]]) -> str:
    """The README's table."""
    lines = ["| work | ratio | spread | goal | met | commit |", "|---|---|---|---|---|---|"]
    for found in sorted(rows, key=lambda found: found["name"]):
        row = Row(**{name: value for name, value in found.items() if name != "commit"})
        lines.append(f"| {row.name} | {' | '.join(cells(row))} | {found['commit']} |")
    return "\n".join(lines)


def cells(row: Row) -> tuple[str, str, str, str]:
    """Ratio, spread, goal and whether it is met, as they are shown."""
    digits = 3 if row.ratio < 0.1 else 2
    goal, met = (
        ("none", "") if row.goal is None else (f"{row.sense} {row.goal:g}", "yes" if row.met else "no")
    )
    return f"{row.ratio:.{digits}f}", f"{row.low:.{digits}f} to {row.high:.{digits}f}", goal, met


def write_readme(readme: Path = README, folder: Path = FOLDER) -> None:
    """Put the newest rows between the README's two markers.

    Raises:
        ValueError: when the markers are not there.
    """
    text = readme.read_text("utf-8")
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{readme} has no lines {_BEGIN} and {_END}")
    readme.write_text(f"{before}{begin}\n{markdown(latest(read(folder)))}\n{end}{after}", "utf-8")


def plot(folder: Path = FOLDER) -> Path:
    """Ratio by commit: a small picture for each row, with its goal as a line."""
    import matplotlib

    matplotlib.use("svg")
    # The same rows make the same file.
    matplotlib.rcParams["svg.hashsalt"] = "ratios"
    from matplotlib import pyplot

    reports = read(folder)
    names = sorted({row["name"] for report in reports for row in report["rows"]})
    height = -(-len(names) // _COLUMNS)
    figure, axes = pyplot.subplots(
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
    pyplot.close(figure)
    return path


def _draw(axis: Any, name: str, found: list[tuple[str, dict[str, Any]]]) -> None:
    places = range(len(found))
    axis.vlines(
        places, [row["low"] for _, row in found], [row["high"] for _, row in found], color="0.7", linewidth=3
    )
    axis.plot(places, [row["ratio"] for _, row in found], "o-", color="tab:blue", markersize=4)
    goal = found[-1][1]["goal"]
    if goal is not None:
        axis.axhline(goal, color="tab:red", linewidth=1)
    axis.set_title(f"{name} ({found[-1][1]['sense']})", fontsize=7)
    axis.set_xticks(places, [commit[:7] for commit, _ in found], fontsize=6)
    axis.tick_params(axis="y", labelsize=6)
    axis.margins(0.2)


def _commit() -> str:
    """Short hash of what is checked out; with a plus where files differ from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if head.returncode:
        return "unknown"
    # The README's table and the results themselves are written by the suite.
    changed = subprocess.run(
        [*git, "diff", "HEAD", "--quiet", "--", "..", ":!results", ":!../README.md"], capture_output=True
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
