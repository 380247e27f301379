"""What a person or a script sees: tables, or JSON with `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from typing import Any


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def print_json_array(values: Iterable[Any]) -> None:
    """A JSON array, item by item, so that a long one never lies in memory."""
    lead = "[\n"
    for value in values:
        text = json.dumps(value, indent=2, default=_plain, ensure_ascii=False)
        print(lead + "  " + text.replace("\n", "\n  "), end="")
        lead = ",\n"
    print("[]" if lead == "[\n" else "\n]")


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, (date, datetime)) else str(value)


def print_table(title: str, rows: Sequence[Mapping[str, Any]], columns: Iterable[str] | None = None) -> None:
    from rich import box
    from rich.table import Table

    names = list(columns or (rows[0] if rows else []))
    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for name in names:
        numeric = all(isinstance(row.get(name), (int, float)) for row in rows) and bool(rows)
        table.add_column(name.replace("_", " "), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in names))
    _console().print(table)


def _console() -> Any:
    """A terminal as wide as it is; a file or pipe wide enough that nothing is folded for no one."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=180)


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}"
    if isinstance(value, dict):
        return escape(", ".join(f"{name} {_cell(item)}" for name, item in value.items()))
    return escape(str(value))


def print_tree(title: str, value: Mapping[str, Any]) -> None:
    """Nested mappings and lists as an indented tree."""
    from rich.tree import Tree

    tree = Tree(title)
    _grow(tree, value)
    _console().print(tree)


def _grow(tree: Any, value: Any) -> None:
    items = value.items() if isinstance(value, Mapping) else enumerate(value)
    for name, item in items:
        if isinstance(item, Mapping) and {"rule", "passed"} <= set(item):
            mark = "passed" if item["passed"] else f"{item['action']}: {item['reason']}"
            tree.add(
                f"{item['rule']} v{item['version']}: {_cell(mark)} (measured {_cell(item['value'])}, {_cell(item['threshold'])})"
            )
        elif isinstance(item, (Mapping, list)) and item:
            _grow(tree.add(f"[bold]{name}[/bold]"), item)
        elif item not in (None, [], {}):
            text = (
                item
                if isinstance(item, str)
                else _cell(item)
                if not isinstance(item, (date, datetime))
                else item.isoformat()
            )
            tree.add(f"[bold]{name}[/bold]: {_cell(text)}")


def one_line(text: str, width: int = 80) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= width else flat[: width - 1] + "…"
